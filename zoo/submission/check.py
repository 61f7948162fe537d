"""Checks a bundle for RobustBench as its reviewers would, without robrep.

    pip install robustbench==1.1.1 "setuptools<82"
    python check.py                      # downloads the test set if need be
    python check.py --npz FILE           # or takes x (N, C, H, W) uint8 and y from FILE
    python check.py --attack 200         # and attacks the first 200 images

Loads the model through RobustBench's zoo, compares its clean accuracy with the one that
model_info/ states, and prints the entry's lines in RobustBench's tables. Exit code 1 if
something differs. (robrep copies this file into each bundle as check.py.)
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import importlib.util
import io
import json
import logging
import os
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

TOLERANCE = 0.05
"""Points between stated and found clean accuracy that RobustBench's own tests allow."""


@dataclass(frozen=True)
class Entry:
    """What the bundle says, found by its layout."""

    name: str
    dataset: str
    threat: str
    info: dict[str, Any]

    @classmethod
    def of(cls, folder: Path) -> Entry:
        """The one entry under `folder`/model_info."""
        (path,) = folder.glob("model_info/*/*/*.json")
        info = json.loads(path.read_text(encoding="utf-8"))
        return cls(path.stem, path.parent.parent.name, path.parent.name, info)


def provide_autoattack() -> str:
    """Makes `import autoattack` work, as RobustBench needs; returns whose code it is.

    AutoAttack's repository installs `autoattack`, but no package index holds it.
    RobustBench's published package depends on `pyautoattack`, the same attacks under
    another name, so without an alias not even `import robustbench` works.
    """
    if importlib.util.find_spec("autoattack") is not None:
        return "autoattack"
    for module in ("", ".state"):
        found = importlib.import_module(f"pyautoattack{module}")
        sys.modules[f"autoattack{module}"] = found
    return "pyautoattack"


def load(entry: Entry) -> Any:
    """The model as `robustbench.utils.load_model` loads those of its zoo."""
    from robustbench.utils import load_model

    sys.path.insert(0, ".")
    importlib.import_module(entry.name.replace("-", "_")).register()
    model = load_model(
        entry.name, model_dir="models", dataset=entry.dataset, threat_model=entry.threat
    )
    mode = "training" if model.training else "eval"
    print(f"model   {entry.name} loads, in {mode} mode")
    return model


def read_test_set(entry: Entry, npz: Path | None, data_dir: Path) -> tuple[Any, Any]:
    """Images (N, C, H, W) in [0, 1] and labels, in the order of the test set."""
    import torch

    if npz is None:
        data = importlib.import_module("robustbench.data")
        try:
            x, y = getattr(data, f"load_{entry.dataset}")(data_dir=str(data_dir))
        except (OSError, RuntimeError) as error:  # no network, or half a download
            sys.exit(
                f"no test set in {data_dir}, and no download of it ({error}); "
                "give its folder by --data-dir, or its arrays by --npz"
            )
        return x, y
    import numpy as np

    try:
        with np.load(npz) as arrays:
            x, y = arrays["x"], arrays["y"]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"{npz} does not hold the arrays x and y ({error})")
    return torch.from_numpy(x).float().div_(255), torch.from_numpy(y).long()


def check_clean(entry: Entry, model: Any, x: Any, y: Any) -> bool:
    """Compares clean accuracy with the stated one."""
    from robustbench.utils import clean_accuracy

    found = 100 * clean_accuracy(model, x, y, batch_size=500)
    stated = float(entry.info["clean_acc"])
    agrees = bool(abs(found - stated) <= TOLERANCE)
    verdict = "agrees" if agrees else "DIFFERS"
    print(f"clean   {found:.2f}, stated {stated:.2f}, {len(x)} images: {verdict}")
    return agrees


def check_tables(entry: Entry) -> bool:
    """Prints the entry's lines in RobustBench's tables, made from model_info/."""
    from robustbench.utils import get_leaderboard_bibtex, get_leaderboard_latex

    with contextlib.redirect_stdout(io.StringIO()):  # these functions talk
        latex = get_leaderboard_latex(entry.dataset, entry.threat)
        _, bibtex = get_leaderboard_bibtex(entry.dataset, entry.threat)
    print(f"latex   {latex}\nbibtex  {bibtex.strip()}")
    found = (entry.name.split("_")[0] in latex, str(entry.info["name"]) in bibtex)
    return all(found)


def attack(entry: Entry, model: Any, x: Any, y: Any, seed: int) -> None:
    """Runs AutoAttack standard and puts the robust accuracy beside the entry's."""
    from autoattack import AutoAttack

    logging.basicConfig(format="%(message)s")
    logging.getLogger("auto-attack").setLevel(logging.DEBUG)
    eps = float(Fraction(entry.info["eps"]))
    attacker = AutoAttack(
        model, norm=entry.threat, eps=eps, seed=seed, version="standard", device="cpu"
    )
    found = attacker.run_standard_evaluation(x, y)
    x_adv = found[0] if isinstance(found, tuple) else found  # pyautoattack: and labels
    robust = int((model(x_adv).argmax(dim=1) == y).sum())
    with Path("verdicts.csv").open(newline="") as stream:
        verdicts = [row["verdict"] for row in csv.DictReader(stream)][: len(x)]
    stated = verdicts.count("robust")
    print(f"robust  {robust} of {len(x)} here, {stated} of {len(x)} in verdicts.csv")


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--npz", type=Path, help="test set: x, y")
    parser.add_argument(
        "--data-dir", type=Path, default=Path("data"), help="where it is downloaded to"
    )
    parser.add_argument("--attack", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the attack")
    options = parser.parse_args()
    npz = options.npz and options.npz.resolve()
    data_dir = options.data_dir.resolve()
    os.chdir(Path(__file__).resolve().parent)  # RobustBench looks for ./model_info
    entry = Entry.of(Path())
    print(f"attacks from {provide_autoattack()}")
    model = load(entry)
    x, y = read_test_set(entry, npz, data_dir)
    holds = [not model.training, check_clean(entry, model, x, y), check_tables(entry)]
    if options.attack:
        count = options.attack
        attack(entry, model, x[:count], y[:count], options.seed)
    print("all agrees" if all(holds) else "something DIFFERS, see above")
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
