"""A probe on anybody's encoder and images, from Python."""

from __future__ import annotations

import copy
from typing import Unpack

from torch import nn

from robrep_eval.probes.linear import ProbeSettings
from robrep_eval.probes.protocols import fit
from robrep_eval.run.options import ProbeOptions, check_names, numbers, probe_settings
from zoo import datasets
from zoo.classifier import Classifier
from zoo.collection.references import check_unused
from zoo.datasets.foreign import Classes, as_datasets
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.layout import Layout
from zoo.own_module import wrap
from zoo.records import ProbeRecord
from zoo.threat import ThreatModel, parse_eps, parse_norm


def fit_probe(
    encoder: nn.Module,
    train: object,
    *,
    test: object | None = None,
    settings: ProbeSettings | None = None,
    seed: int = 0,
    batch_size: int = 256,
    device: str = "cpu",
    norm: str = "Linf",
    eps: float | str | None = None,
    classes: Classes = None,
    mean: float | tuple[float, ...] = 0.0,
    std: float | tuple[float, ...] = 1.0,
    **options: Unpack[ProbeOptions],
) -> tuple[Classifier, ProbeRecord]:
    """Fits a linear probe, or the one that `probe` names, on an encoder's features.

    Args:
        encoder: An `Encoder`, or any module that gives features (N, d), which is
            copied.
        train: A dataset's name, or images and labels of any kind that
            `zoo.datasets.foreign` reads.
        test: If given, k-NN accuracy on it is recorded beside the probe.
        settings: All of the probe's settings, in place of single options.
        seed: Which images, if `labels` asks for a part.
        batch_size: Images per forward pass.
        device: Where to work.
        norm: What probes on adversarial images are fitted against.
        eps: Radius for that, for pixels in [0, 1].
        classes: Names or number, if the data do not say.
        mean: Subtracted per channel before a module that does not normalise itself.
        std: Divides after that.
        options: `probe`, `labels` and `l2`; see `ProbeOptions`.

    Returns:
        The classifier, in eval mode on `device`, and the record of the fit.

    Raises:
        UserError: as `zoo.datasets.foreign.as_datasets`, `zoo.own_module.wrap` and
            `robrep_eval.probes.linear.fit_probe`; no `eps` for a probe that needs it.
    """
    check_names(options, ProbeOptions)
    if settings is not None:
        options = {"probe": settings, **options}
    asked = probe_settings(options)
    if asked.protocol != "SLF" and eps is None:
        raise UserError(f"name a radius for the probe {asked.protocol} (eps=)")
    threat = ThreatModel(norm=parse_norm(norm), eps=parse_eps(eps or 1.0))
    if isinstance(train, str):
        train = datasets.load(train, "train")
    if isinstance(test, str):
        test = datasets.load(test, "test")
    held, fitting = as_datasets(test, train, classes=classes)
    if fitting is None:
        raise UserError("give images and labels to fit the probe on (train)")
    if not isinstance(encoder, Encoder):
        made = wrap(
            copy.deepcopy(encoder),
            fitting.images(slice(2)),
            classes=len(fitting.classes),
            kind="features",
            mean=numbers(mean),
            std=numbers(std),
        )
        assert isinstance(made, Encoder)
        encoder = made
    else:
        check_unused(mean=numbers(mean), std=numbers(std))
    return fit(
        encoder.to(device),
        fitting,
        threat,
        test=held,
        settings=asked,
        labels_seed=seed,
        layout=Layout(device=device, batch_size=batch_size),
    )
