"""A small zoo that was really evaluated, shared by the tests of this folder."""

from __future__ import annotations

import pytest
from zoo_collection import Evaluated, add_encoder

from robrep_eval import evaluate
from zoo.collection.publish import Publication, publish


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """An encoder, evaluated on 60 digits by gradient attacks, in two norms."""
    root = tmp_path_factory.mktemp("evaluated")
    add_encoder(root / "plain", "tiny-digits")
    patch = pytest.MonkeyPatch()
    patch.setenv("ROBREP_ZOO", str(root / "plain"))
    result = evaluate(
        "zoo:tiny-digits",
        eps=0.02,
        attacks="fgsm,pgd",
        limit=60,
        output=root / "run",
        measure=(),
    )
    evaluate(
        "zoo:tiny-digits",
        eps=0.01,
        norm="L2",
        attacks="fgsm",
        limit=60,
        output=root / "other",
        measure=(),
    )
    publish(Publication(runs=[root / "run"]), str(root / "published"))
    patch.undo()
    return Evaluated(
        root / "plain", root / "run", root / "other", root / "published", result
    )
