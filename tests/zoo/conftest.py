"""A small zoo that was really evaluated, shared by the tests of this folder."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from zoo_collection import add_encoder

from robrep_eval.evaluate import evaluate
from zoo.publish import Request, publish
from zoo.records import Result


@dataclass(frozen=True)
class Evaluated:
    """A plain collection, two evaluations, and what was published of the first."""

    plain: Path
    run: Path
    other_run: Path
    published: Path
    result: Result

    def copy(self, to: Path) -> Path:
        """The published collection once more, to be tampered with."""
        shutil.copytree(self.published, to)
        return to


ENTRY = "digits-linf-0.02-slf"
"""Name of the published entry."""


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """An encoder, evaluated on 60 digits by gradient attacks, in two norms."""
    root = tmp_path_factory.mktemp("evaluated")
    add_encoder(root / "plain", "tiny-digits")
    patch = pytest.MonkeyPatch()
    patch.setenv("ROBREP_ZOO", str(root / "plain"))
    result = evaluate(
        "zoo:tiny-digits", eps=0.02, attacks="fgsm,pgd", limit=60, output=root / "run"
    )
    evaluate(
        "zoo:tiny-digits",
        eps=0.01,
        norm="L2",
        attacks="fgsm",
        limit=60,
        output=root / "other",
    )
    publish(Request(runs=[root / "run"]), str(root / "published"))
    patch.undo()
    return Evaluated(
        root / "plain", root / "run", root / "other", root / "published", result
    )
