"""Classifiers of RobustBench's model zoo, through its own loader."""

from __future__ import annotations

from torch import nn

from zoo.errors import UserError, nearest
from zoo.paths import home, offline

PREFIX = "robustbench:"


def robustbench_model(reference: str) -> nn.Module:
    """The classifier that `reference` names; its weights are downloaded once.

    Args:
        reference: robustbench:ID or robustbench:DATASET/NORM/ID.

    Raises:
        UserError: no such model, robustbench is broken, or its download failed.
    """
    dataset, norm, name = _parse(reference)
    return _load(name, dataset, norm)


def _parse(reference: str) -> tuple[str, str, str]:
    parts = reference.removeprefix(PREFIX).split("/")
    if len(parts) == 1:
        return "cifar10", "Linf", parts[0]
    if len(parts) == 3:
        return parts[0], parts[1], parts[2]
    raise UserError(
        f"'{reference}' is not robustbench:ID or robustbench:DATASET/NORM/ID, "
        "such as robustbench:cifar10/Linf/Carmon2019Unlabeled"
    )


def _load(name: str, dataset: str, norm: str) -> nn.Module:
    try:
        from robustbench.model_zoo import model_dicts
        from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
        from robustbench.utils import load_model

        known = model_dicts[BenchmarkDataset(dataset)][ThreatModel(norm)]
    except ImportError as error:
        raise UserError(
            f"robustbench cannot be imported ({error}); robrep needs setuptools<82 "
            "beside it: install robrep again in a fresh environment"
        ) from None
    except (KeyError, ValueError):
        raise UserError(
            f"RobustBench has no models for dataset '{dataset}' and norm '{norm}'"
        ) from None
    if name not in known:
        raise UserError(
            f"RobustBench has no model '{name}' for {dataset} {norm}; "
            f"{nearest(name, known)}"
        )
    folder = home() / "robustbench"
    cached = folder / dataset / norm / f"{name}.pt"
    if offline() and not cached.is_file():
        raise UserError(f"{name} is not at {cached} and offline mode is on")
    try:
        model: nn.Module = load_model(
            name, model_dir=str(folder), dataset=dataset, threat_model=norm
        )
    except Exception as error:  # its downloads fail in many ways, all foreign
        raise UserError(
            f"RobustBench could not load '{name}': {type(error).__name__}: {error}. "
            f"If its download failed, put the file at {cached}"
        ) from None
    return model
