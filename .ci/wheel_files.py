"""Checks what a wheel holds: our packages, their data files, and nothing else."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

PACKAGES = {"robrep_eval", "pretrain", "zoo"}
NEEDED = (
    "zoo/py.typed",
    "zoo/embedded/tarrl-digits/model.safetensors",
    "zoo/embedded/simclr-digits/card.json",
    "pretrain/recipes/tarrl-digits.yaml",
    "robrep_eval/commands/cli.py",
)


def main(wheel: Path) -> int:
    """Prints what is wrong; the exit code."""
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names if ".dist-info/" not in n}
    tracked = {
        str(path)
        for package in PACKAGES
        for path in Path(package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    faults = [f"unexpected top level: {top}" for top in sorted(tops - PACKAGES)]
    faults += [f"missing: {n}" for n in NEEDED if n not in names]
    faults += [f"not in the wheel: {n}" for n in sorted(tracked - set(names))]
    print("\n".join(faults) or f"{wheel.name}: {len(names)} files, as expected")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
