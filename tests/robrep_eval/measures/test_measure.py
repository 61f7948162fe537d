"""Measurements beside the attacks: made by default, kept, and never in the way."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import toy_measurement
from PIL import Image

from robrep_eval import evaluate
from robrep_eval.commands.cli import cli, main
from robrep_eval.commands.display import footnotes
from robrep_eval.measures.base import Finished, Measurement
from robrep_eval.measures.bound import EstimatedBound
from robrep_eval.measures.certify import Smoothing, SmoothingSettings
from robrep_eval.measures.health.measurement import HealthChecks, RadiusCurve
from robrep_eval.measures.label_free import WithoutLabels
from robrep_eval.measures.measure import measure, missing
from robrep_eval.measures.registry import read_options, usual
from zoo import datasets
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import UserError
from zoo.evidence_file import read_claims
from zoo.layout import Layout
from zoo.measurements import Measurements, Status, measurement
from zoo.records import Result, with_measurements
from zoo.result_file import read_result
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
    assert verify_folder(folder)


def test_more_is_measured_without_attacking_again(
    measured: tuple[Path, Result], robust_classifier: Classifier
) -> None:
    folder, before = measured
    again = evaluate(
        robust_classifier.encoder,
        dataset="digits",
        eps=0.1,
        attacks="apgd-ce",
        limit=40,
        output=folder,
        measure=(*usual(), WithoutLabels()),
    )
    found = Measurements.of(again)
    assert found.label_free is not None
    assert 0 <= found.label_free.breakaway_risk <= 1
    told = " ".join(footnotes(again))
    assert f"universal quantile {found.label_free.universal_quantile:.3f}" in told
    assert again.examples == before.examples
    assert again.provenance.created == before.provenance.created
    assert found.bound == before.measurements.bound


def test_a_certificate_with_other_noise_is_made_anew_and_told(
    measured: tuple[Path, Result], robust_classifier: Classifier
) -> None:
    folder, before = measured
    shares: list[float] = []

    def again(sigma: float) -> Result:
        return evaluate(
            robust_classifier.encoder,
            dataset="digits",
            eps=0.1,
            attacks="apgd-ce",
            limit=40,
            output=folder,
            measure=(Smoothing(sampling=SmoothingSettings(sigma=sigma, n=200)),),
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
    assert again(0.3) == result
    assert shares == [], "nothing was left to do"


@pytest.mark.slow
def test_health_looks_at_every_class_of_a_folder_sorted_by_class(
    robust_classifier: Classifier,
    digits_test: Dataset,
    tmp_path: Path,
) -> None:
    """Chance is then a tenth, not the share of the classes that come first."""
    for label in range(10):
        folder = tmp_path / "own" / "test" / str(label)
        folder.mkdir(parents=True)
        for at in (digits_test.labels == label).nonzero().flatten()[:8].tolist():
            pixels = (digits_test.images([at])[0, 0] * 255).round().byte()
            Image.fromarray(pixels.numpy()).save(folder / f"{at:03d}.png")
    result = evaluate(
        robust_classifier,
        dataset=f"imagefolder:{tmp_path / 'own'}",
        eps=0.1,
        attacks="apgd-ce",
        measure=(HealthChecks(images=40),),
    )
    found = Measurements.of(result).health
    assert found is not None
    flag = found.flag("clean_first")
    assert flag.limit == pytest.approx(0.1 + 2 * (0.1 * 0.9 / 80) ** 0.5)
    assert flag.value == pytest.approx(result.clean.k / 80)


def options(*words: str) -> dict[str, Any]:
    """What `robrep-eval` reads from these words."""
    run = cli.commands["run"]
    return run.make_context("run", ["--model", "zoo:tarrl-digits", *words]).params


def test_the_commands_words_become_measurements() -> None:
    assert read_options(options()) == usual()
    assert read_options(options("--health", "none")) == (EstimatedBound(),)
    assert read_options(options("--health", "none", "--no-bound")) == ()
    words = "--health full --label-free --certify smoothing --sigma 0.5 --samples 9"
    sampling = SmoothingSettings(sigma=0.5, n=9, seed=4)
    assert read_options(options(*words.split(), "--seed", "4")) == (
        HealthChecks(level="full"),
        RadiusCurve(),
        Smoothing(sampling=sampling),
        EstimatedBound(),
        WithoutLabels(),
    )
    words = "--health none --label-free --feature-metric whitened"
    assert read_options(options(*words.split())) == (
        EstimatedBound(metric="whitened"),
        WithoutLabels(metric="whitened"),
    )
    with pytest.raises(UserError, match="did you mean 'full'"):
        read_options(options("--health", "ful"))
    with pytest.raises(UserError, match="did you mean 'smoothing'"):
        read_options(options("--certify", "smothing"))
    with pytest.raises(UserError, match="did you mean 'whitened'"):
        read_options(options("--feature-metric", "whitend"))
    with pytest.raises(UserError, match="neither is asked for"):
        read_options(options("--feature-metric", "whitened", "--no-bound"))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ((Smoothing(), Smoothing(images=3)), "'smoothing' is asked for twice"),
        (Smoothing(), "takes a tuple of measurements"),
        (("health",), "takes a tuple of measurements"),
    ],
)
def test_what_cannot_be_measured_is_told_first(
    wanted: Any, message: str, robust_classifier: Classifier
) -> None:
    with pytest.raises(UserError, match=message):
        evaluate(robust_classifier, dataset="digits", eps=0.1, measure=wanted)


# --- what a result has already --------------------------------------------------------


@pytest.fixture(scope="module")
def finished(
    measured: tuple[Path, Result], robust_classifier: Classifier, digits_test: Dataset
) -> Finished:
    """That run, certified and measured without a probe as well."""
    folder, _ = measured
    result = read_result(folder)
    found = Finished(
        result=result,
        classifier=robust_classifier,
        data=digits_test.take(40),
        claims=lambda: read_claims(folder, result, digits_test.take(40)),
        train=lambda: datasets.load("digits", "train").subset(slice(200)),
    )
    more = (Smoothing(sampling=SmoothingSettings(n=100)), WithoutLabels(steps=4))
    return replace(found, result=measure(found, more))


def changed(one: Measurement[Any], **settings: Any) -> list[Measurement[Any]]:
    """Each of these fields changed, one at a time: every field must be named."""
    assert settings.keys() == {field.name for field in fields(one)}
    return [replace(one, **{name: value}) for name, value in settings.items()]


SAMPLING = SmoothingSettings(n=100)
MADE: list[Measurement[Any]] = [
    HealthChecks(),
    RadiusCurve(),
    EstimatedBound(),
    WithoutLabels(steps=4),
    Smoothing(sampling=SAMPLING),
]
OTHERS: list[Measurement[Any]] = [
    *changed(HealthChecks(), level="full", images=30),
    *changed(RadiusCurve(), images=30),
    *changed(
        EstimatedBound(),
        images=30,
        restarts=1,
        steps=49,
        relative_step=0.2,
        metric="whitened",
    ),
    *changed(WithoutLabels(steps=4), steps=5, metric="whitened"),
    *changed(Smoothing(sampling=SAMPLING), sampling=SmoothingSettings(), images=30),
    Smoothing(sampling=replace(SAMPLING, sigma=0.2500001)),
    Smoothing(sampling=replace(SAMPLING, n0=9)),
    Smoothing(sampling=replace(SAMPLING, alpha=0.1)),
    Smoothing(sampling=replace(SAMPLING, seed=1)),
]


@pytest.mark.parametrize("one", MADE, ids=lambda one: one.name)
def test_what_was_made_is_there_wherever_it_is_computed(
    one: Measurement[Any], finished: Finished
) -> None:
    elsewhere = Layout(device="cuda", batch_size=3)
    assert missing([one], finished) == []
    assert missing([one], replace(finished, layout=elsewhere)) == []


@pytest.mark.parametrize("one", OTHERS, ids=repr)
def test_what_was_made_with_other_settings_is_missing(
    one: Measurement[Any], finished: Finished
) -> None:
    assert missing([one], finished) == [one]


def test_another_seed_of_the_run_would_make_all_of_it_anew(finished: Finished) -> None:
    other = finished.result.model_copy(update={"seed": 1})
    seeded = [one for one in MADE if not isinstance(one, Smoothing)]
    assert missing(MADE, replace(finished, result=other)) == seeded


def test_full_health_checks_hold_the_default_ones(finished: Finished) -> None:
    report = Measurements.of(finished.result).health
    assert report is not None
    settings = {**report.settings, "level": "full"}
    full = report.model_copy(update={"level": "full", "settings": settings})
    result = with_measurements(finished.result, {"health": full})
    assert missing([HealthChecks()], replace(finished, result=result)) == []


def test_older_records_were_made_with_the_defaults(finished: Finished) -> None:
    """They note no settings but those that stand in them."""
    older = {}
    for one in MADE:
        record = measurement(finished.result, one.name, one.record)
        assert record is not None
        kept = {} if one.name not in ("bound", "label_free") else record.settings
        kept = {name: value for name, value in kept.items() if name != "images"}
        older[one.name] = record.model_copy(update={"settings": kept})
    before = replace(finished, result=with_measurements(finished.result, older))
    assert missing(MADE, before) == []
    assert missing(OTHERS, before) == OTHERS


# --- a measurement is one file and one row --------------------------------------------

TOY = """
from robrep_eval.measures.registry import ROWS, Row
import rich_click as click

threshold = click.option("--brighter-than", type=float)
ROWS["brightness"] = Row(
    name="brightness", where="toy_measurement:Brightness", options=(threshold,)
)
from robrep_eval.commands.cli import cli, main
main()
"""


def test_a_new_measurement_is_one_file_and_one_row(
    tmp_path: Path, digits_test: Dataset
) -> None:
    folder = tmp_path / "run"
    words = "--model zoo:tarrl-digits --attacks none --limit 20 --health none --report"
    words += f" --brighter-than 0.25 --output {folder}"
    own = [str(Path(toy_measurement.__file__).parent), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", TOY, *words.split()],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(own)},
    )
    means = digits_test.images(slice(20)).flatten(1).mean(dim=1)

    def holds(limit: float) -> int:
        result = read_result(folder)
        found = measurement(result, "brightness", toy_measurement.Bright)
        assert found is not None
        assert found.count == int((means > limit).sum())
        assert found.settings == {"limit": limit}
        return found.count

    assert "measuring: brightness" in done.stderr
    assert f"{holds(0.25)} of 20 images are brighter than 0.25." in done.stdout
    for limit, made in ((0.25, False), (0.3, True), (0.3, False)):
        told: list[str] = []
        evaluate(
            "zoo:tarrl-digits",
            attacks="none",
            limit=20,
            output=folder,
            measure=(toy_measurement.Brightness(limit=limit),),
            on_stage=told.append,
        )
        assert ("measuring: brightness" in told) is made
        holds(limit)


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
