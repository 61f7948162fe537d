"""The report against the record, closed forms, numpy and a second reading of files.

One file in spite of its length: nearly every test reads the same run, made once.
"""

from __future__ import annotations

import base64
import io
import subprocess
import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from reports import (
    HOSTILE,
    Reader,
    copy_run,
    made_material,
    measured_run,
    outside,
)
from torch import nn
from whole import read_whole

from robrep_eval import evaluate
from robrep_eval.commands.cli import main
from robrep_eval.report import write_overview, write_report
from robrep_eval.report.answers import verdict
from robrep_eval.report.bars import attack_bars, bracket, ceiling
from robrep_eval.report.contents import Contents, contents
from robrep_eval.report.curves import falling, lower_bound, upper_bound, value_at
from robrep_eval.report.feature_map import cloud
from robrep_eval.report.gallery import data_uri, gallery
from robrep_eval.report.material import Material, gather
from robrep_eval.report.seen import see, shrink
from robrep_eval.report.svg import Rect, Text
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset, from_array
from zoo.errors import UserError
from zoo.evidence import check_adversarials
from zoo.files import read_json, write_json
from zoo.measurements import Status
from zoo.records import Outcome, Verdict
from zoo.result_file import read_result
from zoo.threat import ThreatModel

pytestmark = pytest.mark.slow


N = 60


@pytest.fixture(scope="module")
def run(
    robust_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("report") / "run"
    evaluate(
        robust_classifier,
        dataset="digits",
        eps=0.1,
        attacks="apgd-ce,fgsm",
        limit=N,
        output=folder,
    )
    return folder


@pytest.fixture(scope="module")
def material(run: Path) -> Material:
    return gather(run, dataset=None, data_dir=None, device="cpu")


@pytest.fixture(scope="module")
def shown(material: Material) -> Contents:
    return contents(material)


def _page(run: Path, to: Path, **options: Any) -> Reader:
    return Reader(write_report(run, to, **options).read_text(encoding="utf-8"))


def test_the_page_states_the_figures_of_the_record(run: Path, tmp_path: Path) -> None:
    result = read_result(run)
    page = _page(run, tmp_path / "r.html")
    for figure in (result.clean, result.robust, *(a.robust for a in result.attacks)):
        assert str(figure) in page.text
    assert f"{result.robust.k} of {result.robust.n} images are correct" in page.text
    assert "95% interval" in page.text
    for attack in result.attacks:
        row = page.row(attack.name)
        assert row[1:3] == [str(attack.attempted), str(attack.fooled)]
    for digest in (
        result.model.weights_sha256,
        result.dataset.sha256,
        result.evidence.file_sha256,
    ):
        assert digest in page.text
    health, bound = result.measurements.health, result.measurements.bound
    assert health is not None
    assert bound is not None
    for flag in health.flags:
        assert flag.summary in page.text
    limited = bound.limited_by
    assert f"limited by the {limited}" in page.text


def test_figures_by_class_are_those_counted_with_numpy(
    material: Material, run: Path, tmp_path: Path
) -> None:
    examples = material.result.examples
    label, said = np.array(examples.label), np.array(examples.clean_prediction)
    robust = np.array([v == Verdict.ROBUST for v in examples.verdict])
    page = _page(run, tmp_path / "r.html")
    table = [row for row in page.rows if row and row[0] in "0123456789"]
    assert len(table) == 10
    for row in table:
        own = label == int(row[0])
        assert row[1] == str(own.sum())
        assert row[2].split("%")[0] == f"{100 * (said == label)[own].mean():.1f}"
        assert row[3].split("%")[0] == f"{100 * robust[own].mean():.1f}"


@given(st.lists(st.floats(0, 1), max_size=40), st.integers(0, 20), st.floats(0, 1.5))
def test_a_staircase_counts_what_is_left_at_each_radius(
    radii: list[float], spare: int, radius: float
) -> None:
    n = len(radii) + spare + 3
    steps = falling(len(radii) + spare, radii, n)
    lost = sum(r <= radius for r in radii)
    assert value_at(steps, radius) == (len(radii) + spare - lost) / n
    assert [share for _, share in steps] == sorted((s for _, s in steps), reverse=True)


def _half_plane() -> tuple[Classifier, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear classifier of two classes, images, labels and exact radii in Linf."""
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(16, 2)
    with torch.no_grad():
        head.weight.copy_(torch.randn(2, 16, generator=generator))
        head.bias.zero_()
    model = Classifier(nn.Flatten(), head, classes=2, shape=(1, 4, 4))
    x = 0.3 + 0.4 * torch.rand(200, 1, 4, 4, generator=generator)
    logits = model(x)
    y = logits.argmax(dim=1)
    normal = head.weight[0] - head.weight[1]
    exact = (logits[:, 0] - logits[:, 1]).abs() / normal.abs().sum()
    return model, x, y, exact.double()


def test_a_shrunk_adversarial_is_one_and_never_nearer_than_the_boundary() -> None:
    model, x, y, exact = _half_plane()
    assert model.linear is not None
    threat = ThreatModel(norm="Linf", eps=0.3)
    towards = (model.linear.weight[1] - model.linear.weight[0]).sign()
    sign = torch.where(y == 0, 1.0, -1.0).view(-1, 1)
    x_adv = x + 0.3 * (sign * towards).view(-1, 1, 4, 4)  # the worst direction
    fooled = check_adversarials(model, x, x_adv, y, threat).fooled & (exact > 1e-3)
    x, x_adv, y, exact = x[fooled], x_adv[fooled], y[fooled], exact[fooled]
    assert len(x) > 50
    given_distance = torch.full((len(x),), 0.3, dtype=torch.float64)
    found = shrink(model, x, x_adv, y, threat, given_distance)
    assert bool((found >= exact * (1 - 1e-4)).all())
    assert bool((found <= exact + 0.3 / 100).all())  # 7 bisections: 0.3 / 128
    # In a random direction the way to the boundary is longer, never shorter.
    other = x + (x_adv - x) * torch.rand_like(x)
    wrong = check_adversarials(model, x, other, y, threat).fooled
    further = shrink(
        model, x[wrong], other[wrong], y[wrong], threat, given_distance[wrong]
    )
    assert bool((further >= exact[wrong] * (1 - 1e-4)).all())


def test_what_does_not_pass_the_re_check_keeps_its_distance() -> None:
    model, x, y, _ = _half_plane()
    threat = ThreatModel(norm="Linf", eps=0.3)
    given_distance = torch.full((len(x),), 0.25, dtype=torch.float64)
    assert torch.equal(shrink(model, x, x, y, threat, given_distance), given_distance)


def test_the_bound_from_evidence_holds_for_exact_radii() -> None:
    """Of a linear classifier the truth is known at every radius."""
    model, x, y, exact = _half_plane()
    assert model.linear is not None
    threat = ThreatModel(norm="Linf", eps=0.3)
    data = from_array(
        x.numpy(), y.numpy(), name="plane", split="test", classes=["a", "b"], levels=1
    )
    towards = (model.linear.weight[1] - model.linear.weight[0]).sign()
    sign = torch.where(y == 0, 1.0, -1.0).view(-1, 1)
    x_adv = x + 0.3 * (sign * towards).view(-1, 1, 4, 4)
    material = made_material(model, data, x_adv, threat)
    seen = see(material)
    assert seen is not None
    steps = upper_bound(material.result, seen)
    for radius in np.linspace(0, 0.3, 101):
        truth = float((exact > radius * (1 + 1e-4) + 1e-6).double().mean())
        assert value_at(steps, radius) >= truth
        # The direction is the worst one: shrinking leaves a 1/128 of eps at most.
        nearly = float((exact > radius - 0.3 / 100).double().mean())
        assert value_at(steps, radius) <= nearly
    assert steps[-1][1] == ceiling(material.result).value < 0.5


def test_the_bound_from_evidence_ends_at_the_figure(material: Material) -> None:
    seen = see(material)
    assert seen is not None
    steps = upper_bound(material.result, seen)
    assert steps[0][1] == material.result.clean.value
    assert value_at(steps, material.result.threat.eps) == material.result.robust.value


def test_undecided_images_count_for_the_model_in_an_upper_bound(
    run: Path, tmp_path: Path
) -> None:
    record = read_whole(run)
    examples = record["examples"]
    robust = [at for at, v in enumerate(examples["verdict"]) if v == "robust"][:4]
    for at in robust:
        examples["verdict"][at] = "undecided"
        examples["outcomes"]["fgsm"][at] = Outcome.UNDECIDED.value
    k = record["robust"]["k"]
    record["robust"] = {**record["robust"], "k": k - 4, "value": (k - 4) / N}
    copy = copy_run(
        run, tmp_path / "run", robust=record["robust"], examples=examples, undecided=4
    )
    found = gather(copy, dataset=None, data_dir=None, device="cpu")
    seen = see(found)
    assert seen is not None
    assert ceiling(found.result).k == k
    assert upper_bound(found.result, seen)[-1][1] == k / N


def test_certificates_bound_from_below_and_smoothing_stays_outside(
    run: Path, tmp_path: Path
) -> None:
    found = gather(
        measured_run(run, tmp_path / "run"), dataset=None, data_dir=None, device="cpu"
    )
    proof = found.measured.lipschitz
    assert proof is not None
    steps = lower_bound(proof)
    for radius in np.linspace(0, 0.25, 60):
        assert value_at(steps, radius) == pytest.approx(
            np.mean(np.array(proof.radius) > radius)
        )
    figure = bracket(found.result, found.measured)
    assert figure is not None
    drawn = figure.drawing
    band = next(m for m in drawn.marks if isinstance(m, Rect) and m.kind == "band")
    track = next(m for m in drawn.marks if isinstance(m, Rect) and m.kind == "track")
    share = band.width / track.width
    assert share == pytest.approx(
        ceiling(found.result).value - proof.certified.value, abs=0.002
    )
    page = _page(tmp_path / "run", tmp_path / "r.html")
    assert "another classifier" in page.text
    assert page.row("glass_blur")[1:] == ["100.0", "50.0", "33.3", "25.0", "20.0"]
    assert "universal quantile 0.120" in page.text


def test_the_histogram_counts_each_image_once(shown: Contents) -> None:
    assert shown.displacement is not None
    bars = [m for m in shown.displacement.drawing.marks if isinstance(m, Rect)]
    highest = max(m.y + m.height for m in bars) - min(m.y for m in bars)
    bound = shown.material.measured.bound
    assert bound is not None
    moved = np.array(bound.examples["displacement"])
    counts, _ = np.histogram(moved, bins=24, range=(0, moved.max() * 1.001))
    assert sum(m.height for m in bars) / highest * counts.max() == pytest.approx(
        len(moved), abs=0.5
    )


def test_the_map_is_the_principal_plane(material: Material) -> None:
    assert material.classifier is not None
    assert material.data is not None
    points = cloud(material, see(material))
    assert points is not None
    with torch.no_grad():
        z = material.classifier.features(material.data.images(slice(None)))
    centred = (z - z.mean(dim=0)).double().numpy()
    _, s, v = np.linalg.svd(centred, full_matrices=False)
    assert points.shares == pytest.approx(tuple(s[:2] ** 2 / (s**2).sum()), rel=1e-5)
    want = centred @ v[:2].T
    for axis in range(2):
        got = points.clean[:, axis].numpy()
        sign = np.sign(got @ want[:, axis])
        assert got == pytest.approx(sign * want[:, axis], abs=1e-4)
    fooled = sum(v is Verdict.FOOLED for v in material.result.examples.verdict)
    assert len(points.attacked) == fooled > 0


def _pixels(uri: str) -> np.ndarray[Any, Any]:
    raw = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(raw))).astype(float)


def test_pictures_are_the_images_and_their_change(
    material: Material, digits_test: Dataset
) -> None:
    seen = see(material)
    found = gallery(material, seen)
    assert found is not None
    assert material.claims is not None
    assert seen is not None
    assert found.factor == 5.0  # 0.5 / eps
    for picture in found.pictures:
        row = material.result.examples.index.index(picture.index)
        at = seen.first()[row]
        clean = digits_test.images([picture.index])[0, 0].double().numpy()
        attacked = material.claims.images[[at]][0, 0].double().numpy()
        assert _pixels(picture.clean) == pytest.approx(255 * clean, abs=0.51)
        assert _pixels(picture.attacked) == pytest.approx(255 * attacked, abs=0.51)
        change = 255 * (0.5 + 5 * (attacked - clean))
        assert _pixels(picture.change) == pytest.approx(change, abs=0.52)
        assert picture.said != picture.truth
        assert picture.distance == pytest.approx(abs(attacked - clean).max())
    classes = [picture.truth for picture in found.pictures]
    fooled = {material.result.examples.label[row] for row in seen.row}
    assert classes[: len(fooled)] == [str(label) for label in sorted(fooled)]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels_becomes_a_picture(channels: int) -> None:
    image = torch.rand(channels, 20, 30)
    pixels = _pixels(data_uri(image, 2))
    assert pixels.shape[:2] == (10, 15)
    assert pixels.ndim == (3 if channels == 3 else 2)


def test_large_images_keep_the_gallery_small() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(16, 3, 224, 224, generator=generator)
    model = Classifier(
        nn.Sequential(nn.AvgPool2d(56), nn.Flatten()),
        nn.Linear(48, 4),
        classes=4,
        shape=(3, 224, 224),
    )
    y = model(x).argmax(dim=1)
    data = from_array(
        x.numpy(), y.numpy(), name="noise", split="test", classes=list("abcd"), levels=1
    )
    assert model.linear is not None
    w = model.linear.weight
    shift = 0.3 * (w[(y + 1) % 4] - w[y]).sign().view(-1, 3, 4, 4)
    wide = nn.functional.interpolate(shift, scale_factor=56)
    x_adv = (x + wide).clamp(0, 1)
    material = made_material(model, data, x_adv, ThreatModel(norm="Linf", eps=0.3))
    found = gallery(material, see(material))
    assert found is not None
    assert found.stride == 3
    parts = [u for p in found.pictures for u in (p.clean, p.attacked, p.change)]
    assert len(found.pictures) >= 4
    assert sum(map(len, parts)) < 1_500_000
    assert _pixels(parts[0]).shape == (75, 75, 3)


@pytest.mark.parametrize(
    ("spoil", "says", "still"),
    [
        (
            lambda run: (run / "classifier.safetensors").unlink(),
            "The classifier could not be loaded: the classifier is missing",
            "without the classifier",
        ),
        (
            lambda run: (run / "adversarials.safetensors").write_bytes(b"x"),
            "is not the file the result names",
            "without the adversarials",
        ),
    ],
    ids=["no classifier", "other evidence"],
)
def test_what_cannot_be_loaded_is_said_and_the_rest_is_there(
    run: Path,
    tmp_path: Path,
    spoil: Callable[[Path], Any],
    says: str,
    still: str,
) -> None:
    copy = copy_run(run, tmp_path / "run")
    spoil(copy)
    page = _page(copy, tmp_path / "r.html")
    assert says in page.text
    assert still in page.text
    assert str(read_result(copy).robust) in page.text


def test_images_that_moved_or_changed_are_said(run: Path, tmp_path: Path) -> None:
    record = read_whole(run)
    copy = copy_run(
        run, tmp_path / "run", dataset={**record["dataset"], "name": "my-own"}
    )
    page = _page(copy, tmp_path / "r.html")
    assert "The images could not be loaded: unknown dataset 'my-own'" in page.text
    assert "Not shown: without the images" in page.text
    found = _page(copy, tmp_path / "s.html", dataset="digits")
    assert "could not be loaded" not in found.text
    other = copy_run(
        run, tmp_path / "o", dataset={**record["dataset"], "sha256": "0" * 64}
    )
    assert "SHA-256 differs" in _page(other, tmp_path / "t.html").text


def test_a_run_without_attacks_and_measurements_says_so(
    robust_classifier: Classifier, tmp_path: Path
) -> None:
    evaluate(
        robust_classifier,
        dataset="digits",
        eps=0.1,
        attacks="none",
        limit=20,
        output=tmp_path / "run",
        measure=(),
    )
    text = _page(tmp_path / "run", tmp_path / "r.html").text
    for sentence in (
        "No attack was run",
        "No attack fooled an image.",
        "Not estimated",
        "Not run: nothing is known about the evaluation itself",
        "nothing is proved from below",
        "Not measured (--label-free)",
        "Not measured (--corruptions)",
        "Randomised smoothing was not asked for",
    ):
        assert sentence in text


def test_hostile_text_stays_text(run: Path, tmp_path: Path) -> None:
    record = read_whole(run)
    name = record["attacks"][0]["name"]
    attacks = [{**record["attacks"][0], "name": HOSTILE}, *record["attacks"][1:]]
    examples = record["examples"]
    examples["outcomes"][HOSTILE] = examples["outcomes"].pop(name)
    copy = copy_run(
        run,
        tmp_path / "run",
        attacks=attacks,
        examples=examples,
        model={**record["model"], "reference": HOSTILE, "arch": HOSTILE},
        battery=HOSTILE,
        notes=[HOSTILE],
        provenance={**record["provenance"], "command": [HOSTILE]},
    )
    data = gather(run, dataset=None, data_dir=None, device="cpu").data
    assert data is not None
    data.classes = (HOSTILE, *data.classes[1:])
    page = _page(copy, tmp_path / "r.html", dataset=data)
    plain = _page(run, tmp_path / "s.html")
    extra = [tag for tag, _ in page.tags if tag == "script"]
    assert extra == []
    assert sum(tag == "img" for tag, _ in page.tags) == sum(
        tag == "img" for tag, _ in plain.tags
    )
    assert not any("onerror" in attributes for _, attributes in page.tags)
    assert page.text.count(HOSTILE) > 5


def test_the_same_run_gives_the_same_small_page(run: Path, tmp_path: Path) -> None:
    one = write_report(run, tmp_path / "a.html").read_bytes()
    two = write_report(run / "result.json", tmp_path / "b.html").read_bytes()
    assert one == two
    assert len(one) < 300_000


def test_no_label_leaves_its_drawing(
    shown: Contents, run: Path, tmp_path: Path
) -> None:
    full = contents(
        gather(
            measured_run(run, tmp_path / "r"), dataset=None, data_dir=None, device="cpu"
        )
    )
    for found in (shown, full):
        figures = [
            found.attack_bars,
            found.bracket,
            found.eps,
            found.displacement,
            found.map,
            found.bound,
            found.limits,
            found.smoothing,
        ]
        for figure in figures:
            if figure is not None:
                assert outside(figure.drawing) == [], figure.drawing.title


def test_bars_are_as_long_as_their_figures(shown: Contents) -> None:
    result = shown.material.result
    marks = [m for m in attack_bars(result).drawing.marks if isinstance(m, Rect)]
    tracks = [m for m in marks if m.kind == "track"]
    lengths = [m.width / tracks[0].width for m in marks if m.kind != "track"]
    attacks = [figure for figure, _ in groupby(run.robust for run in result.attacks)]
    want = [result.clean, *attacks, result.robust]
    assert lengths == pytest.approx([figure.value for figure in want], abs=0.001)


def _command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "robrep_eval", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_attacks_in_a_row_that_come_to_the_same_are_one_bar(shown: Contents) -> None:
    result = shown.material.result
    first = result.attacks[0]
    third = first.model_copy(update={"name": "other", "robust": result.clean})
    same = first.model_copy(update={"name": "square"})
    made = result.model_copy(update={"attacks": [first, same, third, same]})
    marks = attack_bars(made).drawing.marks
    labels = [m.text for m in marks if isinstance(m, Text) and m.kind == "label"]
    assert len(labels) == 1 + 3 + 1
    assert labels[1] == f"{first.name}, square"


def test_nothing_proved_is_no_headline(
    shown: Contents, run: Path, tmp_path: Path
) -> None:
    assert shown.bracket is None
    assert "certified" not in _page(run, tmp_path / "r.html").text.split("Attacks")[0]


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        ("pass pass", "sound"),
        ("pass warn", "doubtful"),
        ("fail warn", "broken"),
        ("warn fail", "broken"),
    ],
)
def test_the_verdict_is_that_of_the_checks(
    shown: Contents, statuses: str, word: str
) -> None:
    health = shown.material.measured.health
    assert health is not None
    flags = [
        flag.model_copy(update={"status": Status(status)})
        for flag, status in zip(health.flags, statuses.split(), strict=False)
    ]
    found = verdict(health.model_copy(update={"flags": flags}))
    assert found.word == word
    if "fail" in statuses:  # what decides is named
        failed = health.flags[statuses.split().index("fail")].check
        assert failed.replace("_", " ") in found.reason
    assert verdict(None).word == "not checked"


def test_several_runs_are_one_page(run: Path, tmp_path: Path) -> None:
    other = copy_run(run, tmp_path / "b", threat={"norm": "Linf", "eps": 0.15})
    result = read_result(run)
    same = write_overview([run, run], tmp_path / "same.html").read_text()
    assert "All on digits/test" in same
    assert Reader(same).text.count(str(result.robust)) >= 2
    mixed = write_overview([run, other], tmp_path / "mixed.html").read_text()
    assert "differ in more than the model" in mixed
    assert "Linf 0.15" in mixed
    done = _command("report", str(run), str(other), "-h")
    assert done.returncode == 0
    with pytest.raises(UserError, match="no folder"):
        write_overview([run, tmp_path / "nowhere"], tmp_path / "r.html")


def test_the_command_writes_the_page_and_names_it(run: Path, tmp_path: Path) -> None:
    done = _command("report", str(run), "--output", str(tmp_path / "deep" / "r.html"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "deep" / "r.html")
    assert Path(done.stdout.strip()).read_text().startswith("<!doctype html>")


def test_a_run_with_report_leaves_the_page_beside_its_record(tmp_path: Path) -> None:
    words = ["--model", "zoo:tarrl-digits", "--attacks", "fgsm", "--limit", "30"]
    words += ["--health", "none", "--report", "--output", str(tmp_path / "run")]
    done = _command(*words)
    assert done.returncode == 0, done.stderr
    assert "report in" in done.stderr
    page = Reader((tmp_path / "run" / "report.html").read_text())
    assert "Robustness of zoo:tarrl-digits" in page.text


def _unfinished(folder: Path) -> None:
    write_json(folder / "run.json", {"identity": {}, "probe": None})


BAD: list[tuple[Callable[[Path], Any], str]] = [
    (lambda f: f.rmdir(), "no folder"),
    (lambda f: None, "is no run folder"),
    (_unfinished, "has not finished; the same robrep-eval command"),
    (lambda f: (f / "result.json").write_text("{"), "is not valid JSON"),
    (lambda f: (f / "result.json").write_text("[]"), "schema version None"),
    (
        lambda f: write_json(f / "result.json", {"schema_version": 1}),
        "is not a valid result: model",
    ),
    (lambda f: (f / "result.json").write_bytes(b"\xff\xfe"), "is not valid JSON"),
]


@pytest.mark.parametrize(("spoil", "message"), BAD, ids=[text for _, text in BAD])
def test_bad_folders_get_one_clear_error(
    tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    spoil(folder)
    with pytest.raises(UserError, match=message):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_the_command_fails_with_one_line_and_code_2(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").write_text("x")
    for words, message in (
        ([str(tmp_path / "nowhere")], "no folder"),
        ([str(run), "--output", str(tmp_path)], "is a folder; name a file"),
        ([str(run), "--output", str(tmp_path / "file" / "r.html")], "cannot write"),
        ([str(run), "--device", "gpu9"], "device 'gpu9' cannot be used"),
    ):
        monkeypatch.setattr(sys, "argv", ["robrep-eval", "report", *words])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert stopped.value.code == 2
        assert message in err
        assert len(err.strip().splitlines()) == 1
        assert out == ""


def test_evidence_that_does_not_fit_is_not_shown(run: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from zoo.files import sha256_file

    copy = copy_run(run, tmp_path / "run")
    tensors = load_file(copy / "adversarials.safetensors")
    tensors["positions"] += 1000
    save_file(tensors, copy / "adversarials.safetensors")
    record = read_json(copy / "result.json")
    record["evidence"]["file_sha256"] = sha256_file(copy / "adversarials.safetensors")
    write_json(copy / "result.json", record)
    page = _page(copy, tmp_path / "r.html")
    assert f"goes from {int(tensors['positions'].min())} to" in page.text
