"""Models of a suite over all of its tasks, and methods beside the first of them."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from robrep_eval.run.suite_figures import (
    Answers,
    Difference,
    Estimate,
    difference,
    figures,
)
from zoo.judgement import Judgement, judge, mark, worst_of
from zoo.records import Record, Result, Training
from zoo.selection import ascending
from zoo.verdicts import correct, robust

KINDS = ("clean", "robust")
Tasks = Mapping[str, Result]
"""What one model came to, by task."""


class Total(Record):
    """One model, or several of one method, over all tasks."""

    name: str
    """Of the model, or of the method."""
    models: list[str]
    labels: bool | None
    """Whether pretraining saw labels; null if nobody says."""
    clean_mean: Estimate
    clean_worst: Estimate
    robust_mean: Estimate | None
    robust_worst: Estimate | None
    """Null if nothing was attacked."""
    clean_worst_task: str
    """All of them where several are equally low: "a, b"."""
    robust_worst_task: str | None
    judgement: Judgement = Judgement.UNCHECKED
    """The worst that health checks made of one of the evaluations."""
    worst_judgement: Judgement = Judgement.UNCHECKED
    """The same of the evaluations on the worst task."""

    def cells(self) -> list[str]:
        """Name, clean mean and worst, robust mean and worst, on which task."""
        held = (
            (self.robust_mean, self.judgement),
            (self.robust_worst, self.worst_judgement),
        )
        robust = [f"{one}{mark(judged)}" if one else "-" for one, judged in held]
        clean = map(str, (self.clean_mean, self.clean_worst))
        return [self.name, *clean, *robust, self.robust_worst_task or "-"]


class Beside(Record):
    """Means over the tasks of a model or method, less those of the first one."""

    name: str
    first: str
    clean: Difference
    robust: Difference | None
    """Null if nothing was attacked."""


@dataclass(frozen=True)
class Method:
    """A model, or several that differ in their seed alone."""

    name: str
    models: list[str]
    found: list[Tasks]


def totals(whole: Mapping[str, Tasks]) -> list[Total]:
    """Of each model, and of each method with several of them.

    Args:
        whole: Results by model and task, all models with the same tasks.
    """
    alone = [Method(model, [model], [found]) for model, found in whole.items()]
    several = [method for method in _methods(whole) if len(method.models) > 1]
    return [_total(each) for each in (*alone, *several)]


def beside_first(whole: Mapping[str, Tasks]) -> list[Beside]:
    """Every method but the first, less the first; a model alone is its own method."""
    methods = _methods(whole)
    return [_beside(each, methods[0]) for each in methods[1:]]


def _methods(whole: Mapping[str, Tasks]) -> list[Method]:
    """In the order of their first models, after which they are called."""
    grouped: dict[str, list[str]] = {}
    seeds: dict[str, set[int]] = {}
    for model, found in whole.items():
        made = next(iter(found.values())).model
        alike = model
        if made.training and made.training.recipe and made.training.seed is not None:
            alike = _settings(made.arch, made.training)
            known = seeds.setdefault(alike, set())
            if made.training.seed in known:
                alike = model  # the same seed again is no further one
            known.add(made.training.seed)
        grouped.setdefault(alike, []).append(model)
    return [
        Method(
            f"{models[0]}, {len(models)} seeds" if len(models) > 1 else models[0],
            models,
            [whole[model] for model in models],
        )
        for models in grouped.values()
    ]


def _beside(method: Method, first: Method) -> Beside:
    a, b = answers_of(method.found, first.found)
    return Beside(
        name=method.name,
        first=first.name,
        clean=difference(a, b, "clean"),
        robust=difference(a, b, "robust") if _attacked(method, first) else None,
    )


def _attacked(*methods: Method) -> bool:
    """Whether every evaluation was: without attack each correct image is robust."""
    return all(
        result.attacks
        for method in methods
        for found in method.found
        for result in found.values()
    )


def answers_of(*sides: Sequence[Tasks]) -> list[list[dict[str, Answers]]]:
    """For `difference`: of each side, of each of its models, the answers by task."""
    everything = [found for side in sides for found in side]
    mixed = _mixed(result for found in everything for result in found.values())
    return [
        [
            {
                task: Answers(
                    images=_images(result, mixed),
                    clean=correct(result.examples),
                    robust=robust(result.examples),
                )
                for task, result in found.items()
            }
            for found in side
        ]
        for side in sides
    ]


def _settings(arch: str, training: Training) -> str:
    """What models must share to be seeds of one method: all but the seed and name."""
    recipe = {k: v for k, v in training.recipe.items() if k not in ("seed", "name")}
    said = (training.method, training.dataset, training.labels, training.epochs)
    parts = [arch, *said, training.extra_data, str(training.threat), recipe]
    return json.dumps(parts, sort_keys=True, default=str)


def _total(method: Method) -> Total:
    (answers,) = answers_of(method.found)
    clean = figures(answers, "clean")
    held = figures(answers, "robust") if _attacked(method) else None
    training = next(iter(method.found[0].values())).model.training
    judged = [
        (task, judge(result.measurements.health))
        for found in method.found
        for task, result in found.items()
    ]
    worst = held.worst_tasks if held else []
    return Total(
        name=method.name,
        models=method.models,
        labels=None if training is None else training.labels,
        clean_mean=clean.mean,
        clean_worst=clean.worst,
        robust_mean=held and held.mean,
        robust_worst=held and held.worst,
        clean_worst_task=", ".join(clean.worst_tasks),
        robust_worst_task=", ".join(worst) or None,
        judgement=worst_of(said for _, said in judged),
        worst_judgement=worst_of(said for task, said in judged if task in worst),
    )


def _images(result: Result, mixed: Container[str]) -> str:
    """Equal for tasks on the same images, whatever was made of these.

    Args:
        result: Of a task.
        mixed: Bases whose derived tasks have their images in an order of their own.
    """
    data, base = result.dataset, _base(result)
    apart = "+" * ("+" in data.name and base in mixed)
    return f"{base}{apart}/{data.split} {result.examples.index}"


def _base(result: Result) -> str:
    return result.dataset.name.partition("@")[0].partition("+")[0]


def _mixed(results: Iterable[Result]) -> set[str]:
    """Bases that are sorted by class, as far as tasks on them tell."""
    return {
        _base(result)
        for result in results
        if "+" not in result.dataset.name and ascending(result.examples.label)
    }
