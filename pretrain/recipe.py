"""A recipe: every setting of one pretraining, validated, enough to repeat it.

Imports no torch. Recipes are YAML; `base:` names a recipe that this one changes, and
`-o key=value` changes it further. Options that only one method knows stand under
`options` and are validated by that method.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema

from pretrain.faults import explain, refuse_booleans
from zoo import yaml_text
from zoo.budgets import BudgetError
from zoo.errors import UserError, nearest
from zoo.threat import ThreatModel, parse_eps

RECIPES = Path(__file__).parent / "recipes"
INIT = "init"
"""In place of an architecture: that of the encoder that the run starts from."""
FINE_TUNING: dict[str, Any] = {
    "batch": 128,
    "epochs": 2,
    "optimizer": {
        "name": "adamw",
        "lr": 1e-5,
        "weight_decay": 1e-4,
        "warmup": 0.07,
    },
    "attack": {"steps": 10},
}
"""What a run with `--init` does unless told otherwise: FARE on ImageNet (20,000 steps
of 128, of which 1,400 warm up; Schlarmann et al. 2024, arXiv 2402.12336)."""

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of all settings: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        refuse_booleans(schema)
        return schema


class AttackSettings(Section):
    """The inner maximisation that every adversarial method shares."""

    steps: Annotated[int, Field(ge=1, le=2**31)] = 5
    """Each costs one forward and one backward pass of every attacked image."""
    step_size: Positive | None = None
    """In pixels of [0, 1]; by default 2 eps / steps, at most eps."""
    mode: Literal["eval", "train"] = "eval"
    """Batch norm during the attack: running statistics, or those of the batch."""


class AugmentSettings(Section):
    """Random views; each number is the strongest that can be drawn."""

    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Smallest area of a random crop, as a share of the image; 1 switches it off."""
    shift: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Largest shift, as a share of the side; black comes in at the border."""
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Degrees."""
    flip: Share = 0.0
    """Probability of a horizontal mirror image."""
    jitter: tuple[Share, Share, Share, Annotated[float, Field(ge=0, le=0.5)]] = (
        0.0,
        0.0,
        0.0,
        0.0,
    )
    """Brightness, contrast, saturation, hue; the last two act on colour images."""
    jitter_p: Share = 0.8
    gray: Share = 0.0
    """Probability of grey instead of colour."""
    blur: Share = 0.0
    """Probability of a Gaussian blur."""


class OptimizerSettings(Section):
    """Optimiser and schedule; the schedule moves per step."""

    name: Literal["sgd", "lars", "adamw"] = "sgd"
    lr: Positive = 0.1
    """Peak."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Not applied to batch norm and biases."""
    warmup: Share = 0.05
    """Share of all steps with a linear rise from 0."""
    schedule: Literal["cosine", "constant", "steps"] = "cosine"
    """"steps": divided by 10 after half and after three quarters."""
    clip: Positive | None = None
    """Largest norm of the whole gradient."""


class ProjectorSettings(Section):
    """The network h between features and contrastive loss; thrown away afterwards."""

    hidden: Count = 512
    out: Count = 128
    layers: Annotated[int, Field(ge=1, le=4)] = 2


class StableSettings(Section):
    """A last linear layer onto the directions that move least: `pretrain.stable`."""

    keep: Count
    """Features that leave the encoder, at most: as many as vary."""
    price: Positive | None = None
    """What displacement costs an L2-penalised probe; None leaves features separate."""
    images: Annotated[int, Field(ge=2)] = 4096
    """Training images that spread and displacement are measured on."""
    steps: Count = 5
    """Of the attack on each."""


class InitSettings(Section):
    """The encoder that a run starts from; its file may not say everything itself."""

    model: str
    """A reference, as `robrep-eval --model` takes it."""
    arch: str | None = None
    """Of a checkpoint without description; by default that of the recipe."""
    arch_options: dict[str, Any] = Field(default_factory=dict)
    normalize: str | None = None
    """Of such a checkpoint: a name or MEAN/STD, as `robrep-eval --normalize`."""
    prefix: str | None = None
    """Of such a checkpoint: before the names of the network's weights."""
    licence: str | None = None
    """Of its weights, where the reference does not lead to one."""
    labels: bool | None = None
    """Whether it saw labels; without a card that says so it counts as having."""
    extra_data: bool | None = None
    """Whether it saw real data beyond those of this run; the same."""


class MonitorSettings(Section):
    """The quick look at the encoder while it trains; decides nothing but "best"."""

    every: Annotated[int, Field(ge=0)] = 10
    """Epochs; 0 switches it off."""
    held_out: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the training images that training never sees."""
    limit: Count = 1000
    """Most held-out images attacked."""
    fit: Count = 5000
    """Most training images that the quick probe is fitted on."""
    steps: Count = 10
    """Of PGD on the probe."""


class Recipe(Section):
    """One pretraining."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=96)]
    """Of the encoder in a zoo; also the default name of the run folder."""
    method: str
    options: dict[str, Any] = Field(default_factory=dict)
    """Of the method; `robrep-pretrain RECIPE --explain` lists them."""
    teacher: str | dict[str, Any] | None = None
    """For methods that start from a trained encoder: a reference (zoo:NAME, a file or
    folder), or the settings in which its recipe differs from this one: it is then
    trained first, in the folder `teacher` of the run."""
    init: InitSettings | None = None
    """An encoder that exists: the student starts as it, or, where `arch` is another,
    follows it. A plain text is its `model`."""
    data: str = "digits"
    dataset_name: str | None = None
    """On the card, for images of your own; by default the last part of their path."""
    arch: str = "resnet_s8"
    """"init": that of the encoder it starts from, its default where there is one."""
    arch_options: dict[str, Any] = Field(default_factory=dict)
    norms: Literal["batch", "frozen"] = "batch"
    """Batch norms in training: statistics of each batch, which move the running ones,
    or the running ones, which then stay as they are."""
    augment: AugmentSettings | Literal["auto"] = "auto"
    """"auto" takes the preset of the dataset."""
    threat: ThreatModel | None = None
    attack: AttackSettings = AttackSettings()
    projector: ProjectorSettings = ProjectorSettings()
    batch: Annotated[int, Field(ge=2)] = 256
    """Images per step over all processes; an incomplete last batch is dropped."""
    accumulate: Count = 1
    """In how many parts a batch goes through the networks, with one step after the
    last; for methods whose images do not meet in the loss. Without batch statistics the
    step is that of the whole batch; batch norms see the parts."""
    checkpoint_activations: bool = False
    """Keep what enters each block of a network and compute the rest again: less memory,
    one more forward pass for each backward pass, the same numbers."""
    sharding: Literal["none", "fsdp"] = "none"
    """Of several processes each holds a share of weights, gradients and optimiser, and
    gathers a block when it comes to it; for networks without batch statistics."""
    epochs: Count | None = None
    passes: Positive | None = None
    """Instead of epochs: forward equivalents per training image, teacher included."""
    optimizer: OptimizerSettings = OptimizerSettings()
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay of an exponential average of the weights, which is then exported; it
    rises to this as t / (t + 10) over the steps t. Batch norms are measured anew."""
    stable: StableSettings | None = None
    """End the exported encoder in a linear map onto its most stable directions."""
    limit: Count | None = None
    """Use only this many training images."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    draws: Literal["step", "image"] = "step"
    """What views and starts of attacks are drawn for: each image of each epoch, which
    is the same in any number of processes; or each step of each process, as up to
    robrep 0.1. Recipes that were trained so keep it: their weights come out again."""
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    """torch.compile the encoder."""
    monitor: MonitorSettings = MonitorSettings()
    checkpoint_minutes: Annotated[float, Field(ge=0)] = 5.0
    """Between checkpoints; they are written at the ends of epochs."""
    licence: str = "Apache-2.0"
    """Of the published encoder."""

    @model_validator(mode="before")
    @classmethod
    def _start(cls, content: Any) -> Any:
        """`init: REF` is `init: {model: REF}`, whose architecture is the default."""
        if not isinstance(content, Mapping) or content.get("init") is None:
            return content
        return {"arch": INIT, **_init_in_full(content)}

    @model_validator(mode="after")
    def _starts(self) -> Recipe:
        if self.arch == INIT and self.init is None:
            raise ValueError("arch 'init' needs an encoder to start from: set init")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> Recipe:
        if (self.epochs is None) == (self.passes is None):
            raise ValueError("give either epochs or passes, not both and not neither")
        return self

    @model_validator(mode="after")
    def _parts(self) -> Recipe:
        if self.accumulate > 1 and self.draws != "image":
            raise ValueError(
                f"accumulate {self.accumulate} needs draws: image, so that the parts "
                "of a batch have the draws of the whole"
            )
        if self.batch % self.accumulate:
            raise ValueError(
                f"batch {self.batch} has no {self.accumulate} equal parts: set "
                "accumulate to a divisor"
            )
        if self.checkpoint_activations and self.compile:
            raise ValueError(
                "checkpoint_activations and compile exclude each other: torch.compile "
                "decides by itself what is computed again"
            )
        return self


def load_recipe(source: str | Path) -> dict[str, Any]:
    """Reads a YAML recipe and what it is based on; validation comes later.

    Args:
        source: A path, or the name of a recipe that comes with robrep.

    Raises:
        UserError: no such recipe (with the nearest names), not YAML, not a mapping,
            or a circle of bases.
    """
    return _load(_find(str(source), Path()), ())


def read_settings(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, as it stands there.

    Raises:
        UserError: not YAML, not a mapping.
    """
    try:
        content = yaml_text.read(path)
    except UserError as error:
        raise UserError(f"recipe {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"recipe {path} must be a mapping of keys to values")
    return content


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=value` to {"a": {"b": value}}; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"-o takes key=value, not '{text}'")
    try:
        content: Any = yaml_text.parse(value, f"-o {key}")
    except BudgetError:
        raise
    except UserError:
        content = value
    for part in reversed(key.strip().split(".")):
        content = {part: content}
    return dict(content)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overlaid with `change`; nested mappings merge.

    `epochs` and `passes` exclude each other, so giving one removes the other's
    default; another `method` leaves the options of the old one behind.
    """
    merged = dict(base)
    if "method" in change and change["method"] != base.get("method"):
        merged.pop("options", None)
    merged, change = _init_in_full(merged), _init_in_full(change)
    for mine, other in (("epochs", "passes"), ("passes", "epochs")):
        if change.get(mine) is not None:
            merged.pop(other, None)
    for key, value in change.items():
        old = merged.get(key)
        nested = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(old, value) if nested else value  # type: ignore[arg-type]
    return merged


def _init_in_full(content: Mapping[str, Any]) -> dict[str, Any]:
    """`init: REF` as `init: {model: REF}`."""
    found = dict(content)
    if isinstance(found.get("init"), str):
        found["init"] = {"model": found["init"]}
    return found


def validate(content: Mapping[str, Any]) -> Recipe:
    """Checks every key, type and range.

    Raises:
        UserError: names the first wrong key, its value, and the nearest known key.
    """
    prepared = _fractions(content)
    try:
        return Recipe.model_validate(prepared)
    except ValidationError as error:
        raise UserError(f"recipe: {explain(error, Recipe)}") from None


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every setting in force."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    return text


def built_in() -> list[str]:
    """Names of the recipes that come with robrep."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _find(source: str, folder: Path) -> Path:
    for path in (folder / source, RECIPES / f"{source}.yaml"):
        if path.is_file():
            return path
    raise UserError(
        f"no recipe '{source}': neither a file nor one of robrep's own; "
        f"{nearest(source, built_in())}"
    )


def _load(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UserError(f"recipe {path} is based on itself")
    content = read_settings(path)
    base = content.pop("base", None)
    if base is None:
        return content
    parent = _load(_find(str(base), path.parent), (*seen, path.resolve()))
    return merge(parent, content)


def _fractions(content: Mapping[str, Any]) -> dict[str, Any]:
    """`attack.step_size: 2/255` to a number, as eps is read."""
    prepared = dict(content)
    attack = prepared.get("attack")
    if isinstance(attack, Mapping) and isinstance(attack.get("step_size"), str):
        prepared["attack"] = {**attack, "step_size": parse_eps(attack["step_size"])}
    return prepared
