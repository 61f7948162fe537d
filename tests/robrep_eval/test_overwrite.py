"""--overwrite replaces a run of robrep's and nothing else; --output spares the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from robrep_eval.commands.cli import main
from zoo.classifier import Classifier
from zoo.classifier_file import save_classifier
from zoo.encoder import Encoder, EncoderSpec
from zoo.files import read_json
from zoo.result_writer import COLUMNS

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    """Evaluates a classifier, in a folder of its own; exit code and message."""
    torch.manual_seed(0)
    options = {"widths": [4, 8], "blocks": [1, 1]}
    spec = EncoderSpec(arch="resnet_s8", options=options, shape=(1, 8, 8))
    made = Classifier(Encoder(spec), nn.Linear(8, 10), classes=10, shape=spec.shape)
    save_classifier(made, tmp_path / "c.safetensors")
    monkeypatch.chdir(tmp_path)

    def run(*words: str, model: str = "c.safetensors") -> tuple[int, str]:
        usual = "--dataset digits --eps .01 --attacks fgsm --limit 8 --health none -q"
        command = ["robrep-eval", "--model", model, *usual.split(), *words]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as stopped:
            main()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, capsys.readouterr().err

    return run


def everything(folder: Path) -> dict[str, bytes]:
    """All plain files by path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def thesis(folder: Path, *names: str) -> dict[str, bytes]:
    """A folder of somebody's own work."""
    for name in ("thesis.tex", "figures/one.pdf", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"years of work: {name}")
    return everything(folder)


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("run.json",),
        ("result.json", "classifier.safetensors", "report.html"),
        ("chunks/00000000-clean.safetensors", "chunks/notes.txt"),
        ("recipe.yaml", "metrics.jsonl", "last/model.safetensors"),
    ],
)
@pytest.mark.parametrize("output", ["thesis", ".", "link", "thesis/..", "$HOME"])
def test_what_is_no_run_is_not_touched(
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, ...],
    output: str,
) -> None:
    folder = tmp_path / "thesis"
    before = thesis(folder, *names)
    (tmp_path / "link").symlink_to(folder)
    model = str(tmp_path / "c.safetensors")
    if output in (".", "$HOME"):
        monkeypatch.chdir(folder)
        monkeypatch.setenv("HOME", str(folder))
        output = "." if output == "." else str(Path.home())
    code, said = call("--output", output, "--overwrite", model=model)
    assert (code, "holds no run of robrep's" in said) == (2, True), said
    assert everything(folder) == before


def test_a_file_is_no_folder_to_overwrite(call: Call, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "nowhere").symlink_to("gone/entirely")
    for output in ("thesis.tex", "nowhere"):
        code, said = call("--output", output, "--overwrite")
        assert (code, "choose another --output" in said) == (2, True), said
    assert (tmp_path / "thesis.tex").read_text() == "mine"


def test_files_of_others_outlive_the_run_around_them(
    call: Call, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert call("--output", "run", "--report")[0] == 0
    written = {*everything(folder)}
    before = thesis(folder, "chunks/notes.txt", ".result.json.bak", "surrogate.txt")
    (folder / "chunks" / "00000000-clean.safetensors").write_text("left by a kill")
    (folder / "chunks" / ".00000000-clean.safetensors.ab12cd_9").write_text("too")
    mine = {name: text for name, text in before.items() if name not in written}
    assert call("--output", "run", "--overwrite", "--seed", "1")[0] == 0
    after = everything(folder)
    assert {name: after.get(name) for name in mine} == mine
    # Columns are named by their content, and other draws have other columns.
    columns = {name for name in {*after, *written} if COLUMNS.fullmatch(name)}
    assert len(columns & {*after}) == 1
    assert {*after} - columns == {*mine, *written} - {"report.html"} - columns
    assert read_json(folder / "result.json")["seed"] == 1


def test_links_in_a_run_lead_to_no_loss(call: Call, tmp_path: Path) -> None:
    assert call("--output", "run")[0] == 0
    before = thesis(tmp_path / "thesis", "00000000-clean.safetensors", "c.txt")
    (tmp_path / "run" / "chunks").symlink_to(tmp_path / "thesis")
    (tmp_path / "run" / "fit.safetensors").symlink_to(tmp_path / "thesis" / "c.txt")
    call("--output", "run", "--overwrite", "--seed", "1")
    after = everything(tmp_path / "thesis")
    assert {name: after.get(name) for name in before} == before


def test_the_model_is_not_overwritten_by_its_evaluation(
    call: Call, tmp_path: Path
) -> None:
    assert call("--output", "run")[0] == 0
    before = everything(tmp_path)
    model = "run/classifier.safetensors"
    code, said = call("--output", "run", "--overwrite", "--seed", "1", model=model)
    assert (code, "is to be evaluated" in said) == (2, True), said
    assert everything(tmp_path) == before


def test_a_page_replaces_only_pages(call: Call, tmp_path: Path) -> None:
    assert call("--output", "run")[0] == 0
    (tmp_path / "run" / "report.html").write_text("<html>my own page")
    code, said = call("--output", "run", "--report")
    assert (code, "is no page of robrep's" in said) == (2, True), said
    (tmp_path / "link.html").symlink_to(tmp_path / "run" / "report.html")
    for output in ("run/report.html", "link.html"):
        sys.argv[1:] = ["report", "run", "--output", output]
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 2
    assert (tmp_path / "run" / "report.html").read_text() == "<html>my own page"
    for _ in range(2):  # its own page it does replace
        sys.argv[1:] = ["report", "run", "--output", "new.html"]
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0


def test_a_table_replaces_only_tables(call: Call, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "summary.json").write_text('{"mine": 1}')
    words = ("--dataset", "digits@1x8x8", "--output", "out")
    code, said = call(*words)
    assert (code, "is no summary of robrep's" in said) == (2, True), said
    assert (tmp_path / "out" / "summary.json").read_text() == '{"mine": 1}'
