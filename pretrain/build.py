"""From a validated recipe to a method with its networks, and what it will cost."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pretrain import distributed, methods
from pretrain.augment import preset
from pretrain.methods.base import Cost, Materials, Method
from pretrain.randomness import generator
from pretrain.recipe import INIT, AugmentSettings, Recipe
from pretrain.start import Start
from robrep_eval.probes.linear import features
from zoo import architectures
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder, EncoderSpec
from zoo.errors import UserError
from zoo.layout import Layout

STATISTICS_BYTES = 1 << 23
"""Of pixels that are looked at together."""
STATISTICS = 10_000
"""Images from which mean and deviation of the pixels are taken."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How long a run takes, in every unit."""

    epochs: int
    steps_per_epoch: int
    cost: Cost
    teacher_passes: float = 0.0
    end_passes: float = 0.0
    """Of `pretrain.stable`, after the last step."""

    @property
    def steps(self) -> int:
        """Of the optimiser."""
        return self.epochs * self.steps_per_epoch

    @property
    def passes(self) -> float:
        """Forward equivalents per training image, teacher and end included."""
        return self.after(self.epochs) + self.end_passes

    def after(self, epochs: int) -> float:
        """The same after so many epochs, the end not included."""
        return epochs * self.cost.passes + self.teacher_passes


def check(recipe: Recipe, data: Dataset) -> None:
    """Everything about a recipe that can be known before the first step.

    Raises:
        UserError: options, architecture or threat model that do not fit.
    """
    options = methods.options(recipe)
    if recipe.accumulate > 1 and not methods.get(recipe.method).splits(options):
        raise UserError(
            f"accumulate {recipe.accumulate} cannot be had with method "
            f"'{recipe.method}': images of one batch meet in its loss, so parts of it "
            "have another; checkpoint_activations saves memory with every method"
        )
    if recipe.threat is not None:
        recipe.threat.check_units(data.shape)
        _check_step(recipe.attack.step_size, recipe.threat.eps)
    if recipe.arch != INIT:
        architectures.resolve_options(recipe.arch, recipe.arch_options)
    elif recipe.arch_options:
        raise UserError(
            f"arch_options {recipe.arch_options} are of an architecture, and this run "
            "takes that of the encoder it starts from: name it with --arch too"
        )


def _check_step(size: float | None, eps: float) -> None:
    """Raises `UserError` for a step over the whole ball, 2 eps in any norm."""
    most = 2 * eps * (1 + 1e-9)
    if size is None or size <= most:
        return
    meant = size >= 1 and size / 255 <= most  # given for pixels in 0-255
    raise UserError(
        f"attack.step_size {size:g} is more than the whole ball of eps {eps:g} is wide "
        "(pixels are in [0, 1]); "
        + (f"did you mean {size:g}/255?" if meant else f"take {2 * eps:g} at most")
    )


def check_start(
    recipe: Recipe, start: Start | None, shape: tuple[int, int, int]
) -> None:
    """What can be known once the encoder that the run starts from is.

    Raises:
        UserError: a linear end that does not fit.
    """
    if recipe.stable is None:
        return
    if start is not None and start.begins(recipe):
        spec = start.encoder.spec
        _check_stable(recipe, spec.arch, spec.options, shape)
        return
    options = architectures.resolve_options(recipe.arch, recipe.arch_options)
    _check_stable(recipe, recipe.arch, options, shape)


def _check_stable(
    recipe: Recipe, arch: str, options: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    assert recipe.stable is not None
    end = architectures.LINEAR_END
    if recipe.threat is None:
        raise UserError("stable needs a threat model: --norm Linf --eps 8/255")
    if end in options:
        raise UserError(
            f"stable sets the {end} of the architecture: leave arch_options.{end} out"
        )
    architectures.build(arch, shape, {**options, end: recipe.stable.keep})


def check_clusters(recipe: Recipe, train: Dataset) -> None:
    """Before a teacher is trained for them.

    Raises:
        UserError: more clusters than training images.
    """
    count = methods.get(recipe.method).clusters(methods.options(recipe))
    if count > len(train):
        raise UserError(
            f"method '{recipe.method}' asks for {count} clusters of {len(train)} "
            "training images; set options.clusters lower"
        )


def build_method(
    recipe: Recipe,
    train: Dataset,
    teacher: Encoder | None,
    start: Start | None = None,
) -> Method:
    """A method whose fresh weights follow from the seed alone.

    Args:
        recipe: Validated.
        train: For shape, number of classes, mean and deviation of the pixels.
        teacher: For methods that need one; the encoder starts from its weights.
        start: What the encoder starts as instead, or follows.

    Raises:
        UserError: an encoder that does not fit its teacher.
    """
    options, kind = methods.options(recipe), methods.get(recipe.method)
    with torch.random.fork_rng(devices=[]):
        draws = generator(recipe.seed, "weights")
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=draws)))
        if start is not None and start.begins(recipe):
            encoder = copy.deepcopy(start.encoder).requires_grad_(True)
        else:
            encoder = Encoder(_spec(recipe, train, kind))
        if teacher is not None and start is None and kind.starts_from_teacher:
            _copy(teacher, encoder)
        _check_fits(kind, recipe.method, encoder, teacher)
        return kind(
            Materials(
                encoder=encoder,
                options=options,
                threat=recipe.threat,
                attack=recipe.attack,
                projector=recipe.projector,
                augment=augmentation(recipe, train),
                classes=len(train.classes),
                teacher=teacher,
                frozen_norms=recipe.norms == "frozen",
            )
        )


def _check_fits(
    kind: type[Method], name: str, encoder: Encoder, teacher: Encoder | None
) -> None:
    if teacher is None or kind.matches or teacher.dim == encoder.dim:
        return
    able = [other for other in methods.registry() if methods.get(other).matches]
    raise UserError(
        f"a student of {encoder.dim} features does not fit a teacher of {teacher.dim}: "
        f"method '{name}' compares them as they are. {', '.join(able)} put a linear "
        "layer between"
    )


def augmentation(recipe: Recipe, data: Dataset) -> AugmentSettings:
    """As the recipe says, or the preset of the dataset."""
    if isinstance(recipe.augment, AugmentSettings):
        return recipe.augment
    return preset(recipe.data, data.shape[0])


def training_labels(
    method: Method, train: Dataset, recipe: Recipe, device: torch.device
) -> Tensor:
    """(N, 1) class labels, (N, k) pseudo-labels, or (N, 0)."""
    if method.labels:
        return train.labels[:, None]
    prepares = type(method).prepare is not Method.prepare
    if method.teacher is not None and prepares:
        seen = train.take(method.prepared_on)
        z = shared_features(method.teacher, seen, Layout(device=str(device)))
        made = method.prepare(z, recipe.seed)
        if made is not None:
            return made
    return torch.empty(len(train), 0, dtype=torch.long)


def shared_features(teacher: nn.Module, data: Dataset, layout: Layout) -> Tensor:
    """Features (N, d) of all images, of which each process computes a part."""
    rows = distributed.own_rows(len(data), layout.batch_size)
    # A process without a part needs the width: one image tells it.
    own = data.subset(slice(rows.start, rows.stop) if rows else slice(1))
    z = features(teacher, own, layout)[: len(rows)]
    return distributed.joined(z, len(data), layout.batch_size)


def plan(
    recipe: Recipe,
    method: Method,
    steps_per_epoch: int,
    teacher_passes: float,
    end_passes: float = 0.0,
) -> Workload:
    """Epochs as given, or as many as the passes pay for, teacher and end included.

    Raises:
        UserError: the passes do not pay for one epoch.
    """
    cost = method.cost(recipe.attack)
    epochs = recipe.epochs
    if epochs is None:
        assert recipe.passes is not None, "a recipe has one of the two"
        left = recipe.passes - teacher_passes - end_passes
        epochs = round(left / cost.passes)
        if epochs < 1:
            raise UserError(
                f"{recipe.passes:g} passes do not pay for one epoch of "
                f"'{recipe.method}': {cost.passes:g} an epoch"
                + (f" after {teacher_passes:g} for the teacher" * bool(teacher_passes))
            )
    return Workload(
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        cost=cost,
        teacher_passes=teacher_passes,
        end_passes=end_passes,
    )


def find_teacher(reference: str) -> tuple[Encoder, float]:
    """A trained encoder by reference, and the passes that went into it (0: unknown)."""
    from zoo.collection import store
    from zoo.collection.references import training_of, weights_file
    from zoo.encoder import load_encoder

    training = training_of(reference)
    passes = training.passes if training else None
    if reference.startswith("zoo:"):
        encoder = store.load_encoder_by_name(reference.removeprefix("zoo:"))
    else:
        encoder = load_encoder(weights_file(reference))
    return encoder, passes or 0.0


def _spec(recipe: Recipe, train: Dataset, kind: type[Method]) -> EncoderSpec:
    if not kind.normalises:
        return EncoderSpec(
            arch=recipe.arch, options=recipe.arch_options, shape=train.shape
        )
    mean, deviation = pixel_statistics(train.take(STATISTICS))
    return EncoderSpec(
        arch=recipe.arch,
        options=recipe.arch_options,
        shape=train.shape,
        mean=tuple(round(float(v), 4) for v in mean),
        std=tuple(round(float(v), 4) for v in deviation.clamp(min=1e-3)),
    )


def pixel_statistics(data: Dataset) -> tuple[Tensor, Tensor]:
    """Mean and deviation (unbiased) of the pixels per channel, (C,) each, float64.

    Read in blocks: of large images, those that are looked at need not fit in memory.
    Each process reads a part.
    """
    count = len(data) * data.shape[1] * data.shape[2]
    rows = distributed.own_rows(len(data), 1)
    data = data.subset(slice(rows.start, rows.stop))
    channels, area = data.shape[0], data.shape[1] * data.shape[2]
    total, squares = torch.zeros(2, channels, dtype=torch.float64)
    for block in data.blocks(max(1, STATISTICS_BYTES // (channels * area))):
        x = block.float()  # integers, whose squares are exact
        total += x.sum(dim=(0, 2, 3), dtype=torch.float64) / data.levels
        squares += x.square_().sum(dim=(0, 2, 3), dtype=torch.float64) / data.levels**2
    total, squares = distributed.total(torch.stack([total, squares]))
    variance = (squares - total.square() / count) / (count - 1)
    return total / count, variance.clamp(min=0).sqrt()


def _copy(teacher: Encoder, encoder: Encoder) -> None:
    own, other = encoder.spec, teacher.spec
    if (own.arch, own.options, own.shape) != (other.arch, other.options, other.shape):
        raise UserError(
            f"the teacher is a {other.arch} {other.options} for {other.shape} images, "
            f"but the recipe builds a {own.arch} {own.options} for {own.shape}; "
            "student and teacher must have the same architecture"
        )
    encoder.load_state_dict(teacher.state_dict())
    encoder.spec = encoder.spec.model_copy(
        update={"mean": other.mean, "std": other.std}
    )
    encoder.mean, encoder.std = teacher.mean.clone(), teacher.std.clone()
