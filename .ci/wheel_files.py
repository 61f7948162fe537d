"""Checks what a wheel holds: our packages, their data files, and nothing else.

A wheel is at most 40 MB, none of its files more than 4 MB: what is larger belongs in
the repository's folder `collection` (see `zoo.collection.sources_embedded`).
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

PACKAGES = {"robrep_eval", "pretrain", "zoo"}
NEEDED = (
    "zoo/py.typed",
    "zoo/embedded/tarrl-digits/model.safetensors",
    "zoo/embedded/simclr-digits/card.json",
    "zoo/repository/template/dot-github/workflows/verify.yml",
    "pretrain/recipes/tarrl-digits.yaml",
    "robrep_eval/commands/cli.py",
    "zoo/suites/digits.yaml",
)


WHEEL, PIECE = 40_000_000, 4_000_000
"""Bytes, at most: of the wheel, and of one file in it."""


def too_large(wheel: Path, limit: int = WHEEL, piece: int = PIECE) -> list[str]:
    """What exceeds the budget."""
    files = zipfile.ZipFile(wheel).infolist()
    faults = [
        f"{file.filename} has {file.file_size:,} bytes, more than {piece:,}: move it "
        "to collection/ and name its encoder in zoo/embedded/elsewhere.json"
        for file in files
        if file.file_size > piece
    ]
    if (size := wheel.stat().st_size) > limit:
        faults.append(f"the wheel has {size:,} bytes, more than {limit:,}")
    return faults


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
    faults += too_large(wheel)
    size = f"{wheel.stat().st_size / 1e6:.1f} of {WHEEL / 1e6:.0f} MB"
    print("\n".join(faults) or f"{wheel.name}: {len(names)} files, {size}, as expected")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
