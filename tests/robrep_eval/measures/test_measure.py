"""Measurements beside the attacks: made by default, kept, and never in the way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

from robrep_eval import evaluate
from robrep_eval.commands.cli import main
from robrep_eval.commands.display import footnotes
from robrep_eval.measures import health
from robrep_eval.measures.certify import SmoothingSettings
from robrep_eval.measures.measure import MeasureSettings
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.measurements import Measurements, Status
from zoo.records import Result
from zoo.verification import verify_folder


@pytest.fixture(scope="module")
def measured(
    robust_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    encoder = robust_classifier.encoder
    assert isinstance(encoder, Encoder)
    folder = tmp_path_factory.mktemp("measured") / "run"
    result = evaluate(
        encoder, dataset="digits", eps=0.1, attacks="apgd-ce", limit=40, output=folder
    )
    return folder, result


def test_every_run_has_health_flags_and_the_estimated_bound(
    measured: tuple[Path, Result],
) -> None:
    folder, result = measured
    found = Measurements.of(result)
    assert found.health is not None
    assert not [f for f in found.health.flags if f.status is Status.FAIL]
    assert found.bound is not None
    assert found.bound.adversarial_loss <= found.bound.b2 <= found.bound.b1
    assert found.label_free is None
    assert found.smoothing is None
    text = " ".join(footnotes(result))
    assert "Health:" in text
    assert "Bound (estimate)" in text
    assert len(verify_folder(folder)) == 4


def test_more_is_measured_without_attacking_again(
    measured: tuple[Path, Result], robust_classifier: Classifier
) -> None:
    folder, before = measured
    again = evaluate(
        robust_classifier.encoder,  # type: ignore[arg-type]
        dataset="digits",
        eps=0.1,
        attacks="apgd-ce",
        limit=40,
        output=folder,
        measure=MeasureSettings(label_free=True),
    )
    found = Measurements.of(again)
    assert found.label_free is not None
    assert 0 <= found.label_free.breakaway_risk <= 1
    told = " ".join(footnotes(again))
    assert f"universal quantile {found.label_free.universal_quantile:.3f}" in told
    assert again.examples == before.examples
    assert again.provenance.created == before.provenance.created
    assert again.measurements.bound == before.measurements.bound


def test_a_certificate_with_other_noise_is_made_anew_and_told(
    measured: tuple[Path, Result], robust_classifier: Classifier
) -> None:
    folder, before = measured
    shares: list[float] = []

    def again(sigma: float) -> Result:
        return evaluate(
            robust_classifier.encoder,  # type: ignore[arg-type]
            dataset="digits",
            eps=0.1,
            attacks="apgd-ce",
            limit=40,
            output=folder,
            measure=MeasureSettings(
                certify=("smoothing",), smoothing=SmoothingSettings(sigma=sigma, n=200)
            ),
            on_work=shares.append,
        )

    for sigma in (0.1, 0.3):
        result = again(sigma)
        proof = Measurements.of(result).smoothing
        assert proof is not None
        assert (proof.sigma, proof.n, len(proof.index)) == (sigma, 200, 40)
        text = " ".join(footnotes(result))
        assert f"Smoothed with sigma {sigma:g} (another classifier, not this" in text
        assert str(proof.smoothed) in text
        assert result.robust == before.robust
        assert shares[-1] == 1.0
        shares.clear()
    assert again(0.3).measurements.smoothing == result.measurements.smoothing
    assert shares == [], "nothing was left to do"


def test_health_looks_at_every_class_of_a_folder_sorted_by_class(
    robust_classifier: Classifier,
    digits_test: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Chance is then a tenth, not the share of the classes that come first."""
    for label in range(10):
        folder = tmp_path / "own" / "test" / str(label)
        folder.mkdir(parents=True)
        for at in (digits_test.labels == label).nonzero().flatten()[:8].tolist():
            pixels = (digits_test.images([at])[0, 0] * 255).round().byte()
            Image.fromarray(pixels.numpy()).save(folder / f"{at:03d}.png")
    monkeypatch.setattr(health, "MAX_IMAGES", 40)
    result = evaluate(
        robust_classifier,
        dataset=f"imagefolder:{tmp_path / 'own'}",
        eps=0.1,
        attacks="apgd-ce",
    )
    found = Measurements.of(result).health
    assert found is not None
    limit = found.flag("clean_first").limit
    assert limit == pytest.approx(0.1 + 2 * (0.1 * 0.9 / 40) ** 0.5)


def test_unknown_levels_and_certificates_give_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'full'"):
        MeasureSettings(health="ful")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="did you mean 'smoothing'"):
        MeasureSettings(certify=("smothing",))


def test_a_result_compared_with_itself_differs_nowhere(
    measured: tuple[Path, Result],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, _ = measured
    monkeypatch.setattr(sys, "argv", ["x", "compare", str(folder), str(folder)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "40 shared images" in out
    assert "apgd-ce" in out
    assert "+0.0" in out
    assert "A: (encoder) (SLF, l2 " in out
