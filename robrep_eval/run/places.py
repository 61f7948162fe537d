"""Where several evaluations of one command lie, and their table."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from robrep_eval.run.plan import model_word
from robrep_eval.run.request import Request
from robrep_eval.run.summary import SUFFIXES
from zoo.datasets.base import Dataset
from zoo.datasets.names import recorded_name
from zoo.errors import UserError
from zoo.own_module import class_name
from zoo.paths import safe_name

AXES = ("model", "dataset", "eps", "probe")
"""Options that may have several values, the slowest to change first."""
LONGEST = 60
"""Characters of what tells a table among other runs from its neighbours."""


def asked_for(request: Request) -> dict[str, Any]:
    """The values of `AXES` as words; None where the model or dataset decides."""
    model, data = request.model, request.dataset
    return {
        "model": model if isinstance(model, str) else class_name(model),
        "dataset": data.name if isinstance(data, Dataset) else data,
        "eps": None if request.eps is None else str(request.eps),
        "probe": request.probe.protocol.lower(),
    }


def placed(requests: Sequence[Request]) -> list[Request]:
    """The requests with a run folder for each, named by what they differ in.

    Raises:
        UserError: two would have the same.
    """
    output = requests[0].output
    if len(requests) == 1 or output is None:
        return list(requests)
    if output == "auto":
        models = [request.model for request in requests]
        for model, word in zip(models, words_for(models, model_word), strict=True):
            if word != model_word(model):
                raise UserError(
                    f"the runs of several models would lie in runs/"
                    f"{safe_name(model_word(model))}; name a folder for all of them "
                    "(--output FOLDER)"
                )
        return list(requests)
    varied = [words for words in _columns(requests) if len(set(words)) > 1]
    told: dict[str, tuple[str, ...]] = {}
    names = []
    for words in zip(*varied, strict=True):
        names.append(safe_name("-".join(words)))
        other = told.setdefault(names[-1].casefold(), words)
        if other != words:
            raise UserError(
                f"the runs {', '.join(other)} and {', '.join(words)} would share the "
                f"folder {names[-1]}; evaluate one on its own (--output FOLDER)"
            )
    return [
        replace(request, output=output / name)
        for request, name in zip(requests, names, strict=True)
    ]


def _columns(requests: Sequence[Request]) -> list[list[str]]:
    """A word of each request for each of `AXES`."""
    asked = [asked_for(request) for request in requests]
    return [
        words_for([request.model for request in requests], _model_word),
        words_for([request.dataset for request in requests], _dataset_word),
        [one["eps"] or "own" for one in asked],
        [one["probe"] for one in asked],
    ]


def words_for(values: Sequence[object], short: Callable[[Any], str]) -> list[str]:
    """A short word for each value; equal values have the same, others never have.

    Nor have they words that differ in what no folder's name can show.
    """
    keys = [value if isinstance(value, str) else id(value) for value in values]
    shorts = {key: short(value) for key, value in zip(keys, values, strict=True)}
    once = Counter(safe_name(word).casefold() for word in shorts.values())
    objects = [key for key in shorts if isinstance(key, int)]

    def word(key: str | int) -> str:
        if once[safe_name(shorts[key]).casefold()] == 1:
            return shorts[key]
        if isinstance(key, int):
            return f"{shorts[key]}-{1 + objects.index(key)}"
        return f"{shorts[key]}-{hashlib.sha256(key.encode()).hexdigest()[:6]}"

    return [word(key) for key in keys]


def _model_word(model: str | nn.Module) -> str:
    return model_word(model) if isinstance(model, str) else type(model).__name__


def _dataset_word(dataset: str | Dataset | None) -> str:
    if dataset is None:
        return "own"
    return recorded_name(dataset) if isinstance(dataset, str) else dataset.name


def table_files(requests: Sequence[Request], output: Path | str | None) -> list[Path]:
    """summary.* in the folder asked for; among other runs a name of its own."""
    if len(requests) == 1 or output is None:
        return []
    if isinstance(output, Path):
        stem = output / "summary"
    else:
        words = dict.fromkeys(word for words in _columns(requests) for word in words)
        text = safe_name("-".join(words))[:LONGEST]
        first = requests[0]
        rest = (first.norm, first.attacks, first.engine, first.limit, first.settings)
        told = repr(([*map(asked_for, requests)], rest, first.probe))
        digest = hashlib.sha256(told.encode()).hexdigest()
        stem = Path("runs") / f"summary-{text}-{digest[:6]}"
    return [stem.with_name(f"{stem.name}{suffix}") for suffix in SUFFIXES]
