"""Model references: what people write after --model.

zoo:NAME            an encoder of the zoo
PATH                a .safetensors or .pt file (with --arch unless it says what it is),
                    or the folder of an encoder: model.safetensors and its card
hf://ORG/REPO[@REV] the encoder of a hub repository: robrep's own, or one of timm,
                    transformers or open_clip (hf-hub:ORG/REPO also works)
timm:NAME           a pretrained model of timm, as an encoder
robustbench:ID      a classifier of RobustBench (robustbench:DATASET/NORM/ID)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo import architectures
from zoo.collection.fitting import fit_names
from zoo.collection.index import CARD
from zoo.collection.state_file import read_state
from zoo.datasets.local import noted
from zoo.encoder import Encoder, EncoderSpec, load_encoder, load_weights
from zoo.errors import RobrepError, UserError, nearest
from zoo.files import sha256_file
from zoo.paths import user_path
from zoo.records import WEIGHTS, Card, Training, read_record

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.classifier import Classifier
    from zoo.collection.hub_models import Pretrained
    from zoo.collection.sources import Source

HUB = ("hf://", "hf-hub:")
PREFIXES = ("zoo:", "timm:", "robustbench:", *HUB)
SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".tar")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a reference led to: an encoder to probe, or a ready-made classifier."""

    reference: str
    encoder: Encoder | None = None
    classifier: Classifier | None = None
    training: Training | None = None
    notes: tuple[str, ...] = ()
    """What the user is to know about how it was read."""

    @property
    def arch(self) -> str:
        """Architecture, for the record."""
        model = self.encoder or (self.classifier and self.classifier.encoder)
        spec = getattr(model, "spec", None)
        return str(spec.arch) if spec else self.reference


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What the reference itself does not say."""

    shape: tuple[int, int, int]
    """(C, H, W) of the dataset the model is for."""
    classes: int
    arch: str | None = None
    arch_options: tuple[tuple[str, object], ...] = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    prefix: str | None = None
    """Before the names of the network's weights in a file; by default found."""
    kind: str | None = None
    """"features" to leave a head in the file out, "logits" to insist on it."""


def check(reference: str) -> None:
    """Raises `UserError` at once for a reference that leads nowhere."""
    if reference.startswith("zoo:"):
        from zoo.collection.store import card

        card(reference.removeprefix("zoo:"))
    elif not reference.startswith(PREFIXES):
        path = weights_file(reference)
        if not path.is_file() and path.suffix in SUFFIXES:
            raise UserError(f"no file {path}")
        if not path.is_file() and "/" in reference:
            what = "no model.safetensors in" if path.is_dir() else "no file or folder"
            raise UserError(f"{what} {path}")
        if not path.is_file():
            raise UserError(_unknown(reference))


UNUSED: dict[str, object] = {
    "arch": None,
    "arch_options": (),
    "prefix": None,
    "kind": None,
    "mean": (0.0,),
    "std": (1.0,),
}
"""Options that only some models take, with the values that say nothing."""


def check_unused(**options: object) -> None:
    """Raises `UserError` for an option that says something and would do nothing."""
    for name, value in options.items():
        if value != UNUSED[name]:
            raise UserError(
                f"{name} is for a checkpoint without description or a module of your "
                "own; this model has its architecture and normalisation inside: leave "
                f"{name} out (mean and std: --normalize)"
            )


def load(reference: str, options: LoadOptions) -> Loaded:
    """Follows a reference.

    Raises:
        UserError: unknown prefix or name (with the nearest), missing or broken file,
            weights that do not fit, labels that do not fit.
    """
    if options.kind not in (None, "features", "logits"):
        raise UserError(f"kind must be 'features' or 'logits', not '{options.kind}'")
    if reference.startswith(PREFIXES):
        _check_unused(options)
    if reference.startswith("zoo:"):
        return _from_zoo(reference)
    if reference.startswith(HUB):
        return _from_hub(reference, options)
    if reference.startswith("timm:"):
        from zoo.collection.hub_models import from_timm

        return _pretrained(reference, from_timm(reference, options.shape))
    if reference.startswith("robustbench:"):
        return _from_robustbench(reference, options)
    check(reference)
    return _from_file(reference, weights_file(reference), options)


def _check_unused(options: LoadOptions) -> None:
    check_unused(**{name: getattr(options, name) for name in UNUSED})


def training_of(reference: str) -> Training | None:
    """What is known of the training of a reference, before anything is loaded.

    Of an encoder of the zoo by its card; of a file by the card that lies beside it, if
    it is the card of these very weights.
    """
    if reference.startswith("zoo:"):
        from zoo.collection.store import card

        return card(reference.removeprefix("zoo:")).training
    path = weights_file(reference)
    beside = path.parent / CARD
    if reference.startswith(PREFIXES) or not (path.is_file() and beside.is_file()):
        return None
    found = read_record(beside, Card)
    return found.training if found.sha256 == sha256_file(path) else None


def images_of(reference: str) -> str | None:
    """imagefolder:PATH of the images that a local encoder was trained on, if known."""
    if reference.startswith(PREFIXES):
        return None
    return noted(weights_file(reference).parent)


def weights_file(reference: str) -> Path:
    """The weights that a path leads to: itself, or those in the folder it names."""
    path = user_path(reference)
    return path / WEIGHTS if (path / WEIGHTS).is_file() else path


def _unknown(reference: str) -> str:
    from zoo.collection.store import names

    known = names()
    if reference in known:
        return f"unknown model '{reference}'; did you mean 'zoo:{reference}'?"
    near = nearest(reference, [f"zoo:{name}" for name in known])
    return (
        f"unknown model '{reference}'; {near} Other forms: a .safetensors or .pt file, "
        "hf://ORG/REPO, timm:NAME, robustbench:ID"
    )


def _from_zoo(reference: str) -> Loaded:
    from zoo.collection.opening import open_source

    return _named(reference, reference.removeprefix("zoo:"), open_source())


def _from_hub(reference: str, options: LoadOptions) -> Loaded:
    """The one encoder of a hub repository: of robrep's own, or of another library."""
    from zoo.collection.hub_models import find_model
    from zoo.collection.opening import open_source

    source = open_source(reference)
    try:
        names = source.index.names()
    except RobrepError:  # it has no index, or offline that is not known
        model = find_model(reference)
        if model is None:
            raise
        return _pretrained(reference, model.load(options.shape))
    if len(names) != 1:
        raise UserError(
            f"{reference} holds {len(names)} encoders ({', '.join(names)}); choose one "
            f"by zoo:NAME with ROBREP_ZOO={reference}"
        )
    return _named(reference, names[0], source)


def _pretrained(reference: str, made: Pretrained) -> Loaded:
    return Loaded(reference=reference, encoder=made.encoder, notes=made.notes)


def _named(reference: str, name: str, source: Source) -> Loaded:
    """An encoder with what its card says of the training; the index is read once."""
    from zoo.collection.store import load_encoder_by_name

    return Loaded(
        reference=reference,
        encoder=load_encoder_by_name(name, source),
        training=source.find(name).card.training,
    )


def _from_robustbench(reference: str, options: LoadOptions) -> Loaded:
    """A classifier through RobustBench's own loader (which downloads its weights)."""
    from torch import nn

    from zoo.classifier import Classifier
    from zoo.nets.robustbench_model import robustbench_model

    return Loaded(
        reference=reference,
        classifier=Classifier(
            robustbench_model(reference),
            nn.Identity(),
            classes=options.classes,
            shape=options.shape,
        ),
    )


def _from_file(reference: str, path: Path, options: LoadOptions) -> Loaded:
    """An encoder or a classifier from a checkpoint file."""
    if path.suffix == ".safetensors" and options.arch is None:
        _check_unused(options)
        return _described_file(reference, path)
    if options.arch is None:
        raise UserError(f"{path} does not say what it holds; name it with --arch")
    tensors = read_state(path)
    spec = EncoderSpec(
        arch=options.arch,
        options=architectures.resolve_options(options.arch, dict(options.arch_options)),
        shape=options.shape,
        mean=options.mean,
        std=options.std,
    )
    return _fit_state(reference, tensors, spec, options)


def _described_file(reference: str, path: Path) -> Loaded:
    """A file of robrep's own: an encoder, or a classifier saved by an evaluation."""
    from zoo.classifier_file import METADATA_KEY, load_classifier
    from zoo.files import read_tensors

    if METADATA_KEY in read_tensors(path)[1]:
        return Loaded(reference=reference, classifier=load_classifier(path))
    training = training_of(reference)
    return Loaded(reference=reference, encoder=load_encoder(path), training=training)


def _fit_state(
    reference: str,
    tensors: dict[str, Tensor],
    spec: EncoderSpec,
    options: LoadOptions,
) -> Loaded:
    """Backbone weights, and the head too if the file holds one for these classes."""
    from torch import nn

    from zoo.classifier import Classifier

    encoder = Encoder(spec)
    own = encoder.backbone.state_dict()
    found = fit_names(tensors, own, source=reference, prefix=options.prefix)
    load_weights(encoder.backbone, found.weights, source=reference)
    wanted = (options.classes, encoder.dim)
    weight = found.head.get("weight")
    notes = found.notes
    if options.kind == "features":
        weight = None  # of whatever classes: nobody asked for it
    if weight is not None and tuple(weight.shape) != wanted:
        why = (
            f"The head in {reference} is {tuple(weight.shape)}, not {wanted} for the "
            "classes of the dataset and these features; it is left out."
        )
        notes += (why,)
        weight = None
    if weight is None and options.kind == "logits":
        why = f" ({notes[-1]})" if notes else ""
        raise UserError(f"{reference} holds no head for {options.classes} classes{why}")
    if weight is None:
        return Loaded(reference=reference, encoder=encoder.eval(), notes=notes)
    head = nn.Linear(encoder.dim, options.classes)
    bias = found.head.get("bias", weight.new_zeros(options.classes))
    load_weights(head, {"weight": weight, "bias": bias}, source=reference)
    return Loaded(
        reference=reference,
        classifier=Classifier(encoder, head, classes=options.classes, shape=spec.shape),
        notes=notes,
    )
