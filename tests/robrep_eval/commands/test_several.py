"""Lists of models, datasets, radii and probes, and options from a file.

One file in spite of its length: all of it calls the command with the same two
models, made once.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import photo_layouts
import pytest
import torch

from robrep_eval import evaluate, evaluate_all
from robrep_eval.commands.cli import main
from robrep_eval.run.places import placed, words_for
from robrep_eval.run.request import Request
from robrep_eval.run.several import split_values
from robrep_eval.run.summary import Summary, SummaryRow
from zoo.encoder import Encoder, EncoderSpec, save_encoder
from zoo.errors import UserError, VerificationError
from zoo.paths import safe_name
from zoo.records import read_record
from zoo.recount import check_figures
from zoo.result_file import read_result
from zoo.verification import verify_folder

FEW = ("--limit", "10", "--health", "none", "--attacks", "fgsm", "--labels", "40")
SURROGATE = "zoo:tarrl-digits"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two encoders with fresh weights in files of one name."""
    root = tmp_path_factory.mktemp("models")
    paths = []
    for seed, name in enumerate(("one", "other,one")):
        torch.manual_seed(seed)
        options = {"widths": [4, 8], "blocks": [1, 1]}
        spec = EncoderSpec(arch="resnet_s8", options=options, shape=(1, 8, 8))
        paths.append(root / name / "model.safetensors")
        paths[-1].parent.mkdir()
        save_encoder(Encoder(spec), paths[-1])
    return paths


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "400")  # long paths must not fold the table

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["robrep-eval", *map(str, words)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, out, " ".join(err.split())

    return run


def figures(folder: Path) -> dict[str, Any]:
    """A record without what differs from run to run: dates and seconds."""
    found = json.loads(read_result(folder / "result.json").model_dump_json())
    del found["provenance"], found["seconds"], found["model"]["reference"]
    found["probe"].pop("seconds", None)
    for run in found["attacks"]:
        del run["seconds"]
    for name in ("file_sha256",):  # of a file that holds the reference as typed
        found["model"].pop(name, None)
    return dict(found)


@pytest.mark.slow
def test_every_combination_is_the_run_of_its_single_command(
    call: Any, models: list[Path], tmp_path: Path
) -> None:
    first, second = models
    words = ["--model", first, "--model", second, "--eps", "0.05,0.1", *FEW]
    words += ["--dataset", "digits-parity"]
    code, out, err = call(*words, "--output", "out", "--summary", "tables/t.tex")
    assert code == 0, err
    table = read_record(tmp_path / "out" / "summary.json", Summary)
    assert len({row.folder for row in table.rows}) == 4
    assert [row.threat.eps for row in table.rows] == [0.05, 0.1, 0.05, 0.1]
    assert [row.model for row in table.rows[1:3]] == [str(first), str(second)]
    for text in ("out/summary.md", "out/summary.tex", "tables/t.tex"):
        assert (tmp_path / text).read_text().count("digits-parity") == 4
    assert out.count("digits-parity") == 4
    last = table.rows[3]
    code, _, err = call(
        *("--model", second, "--dataset", "digits-parity", "--eps", "0.1", *FEW),
        *("--output", "single"),
    )
    assert code == 0, err
    assert figures(tmp_path / "single") == figures(tmp_path / "out" / str(last.folder))
    results = sorted(tmp_path.glob("out/*/result.json"))
    written = [path.stat().st_mtime_ns for path in results]
    code, _, err = call(*words, "--output", "out")
    assert (code, err.count("nothing left to do")) == (0, 4)
    assert written == [path.stat().st_mtime_ns for path in results]


@pytest.mark.parametrize(
    ("attacks", "surrogates"),
    [("fgsm", 0), pytest.param(f"transfer:{SURROGATE}", 2, marks=pytest.mark.slow)],
)
def test_a_linear_probe_is_fitted_once_for_all_radii(
    models: list[Path], tmp_path: Path, attacks: str, surrogates: int
) -> None:
    """And one for each dataset; the surrogates of transfer attacks likewise."""

    def stages() -> str:
        told: list[str] = []
        evaluate_all(
            str(models[0]),
            ["digits", "digits-parity"],
            eps=[0.05, 0.1],
            attacks=attacks,
            measure=(),
            labels=40,
            limit=4,
            output=tmp_path / "out",
            on_stage=told.append,
        )
        return " ".join(told)

    told = stages()
    assert told.count("fitting a linear probe (SLF)") == 2
    assert told.count(f"fitting a linear probe on {SURROGATE} to") == surrogates
    runs = {path.name: read_result(path) for path in tmp_path.glob("out/digits*")}
    for task in ("digits", "digits-parity"):
        near, far = runs[f"{task}-0.05"], runs[f"{task}-0.1"]
        assert near.probe == far.probe, "to the seconds that it took"
        assert near.model == far.model, "with the hash of the classifier's file"
        assert near.examples.clean_prediction == far.examples.clean_prediction
    assert runs["digits-0.1"].probe != runs["digits-parity-0.1"].probe
    assert [*verify_folder(tmp_path / "out" / "digits-0.1")]
    (tmp_path / "out" / "digits-0.1" / "result.json").unlink()
    told = stages()
    assert told.count("nothing left to do") == 3
    assert "going on with the run in" in told
    assert "fitting" not in told
    assert (
        read_result(tmp_path / "out" / "digits-0.1").probe == runs["digits-0.1"].probe
    )


@pytest.mark.slow
def test_a_killed_command_goes_on_where_it_was(
    models: list[Path], tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "robrep_eval", "--model", str(models[0])]
    words += [
        "--dataset",
        "digits-parity",
        "--eps",
        "0.05,0.1",
        *FEW,
        "--output",
        "out",
    ]
    killed = subprocess.Popen(
        words,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
    )
    assert killed.stderr is not None
    for line in killed.stderr:
        if line.startswith("evaluation 2 of 2"):
            break
    killed.kill()
    killed.communicate()
    done = (tmp_path / "out" / "0.05" / "result.json").stat().st_mtime_ns
    left = read_record(tmp_path / "out" / "summary.json", Summary)
    assert (len(left.rows), left.missing) == (1, 1)
    assert left.title.startswith("1 of 2 evaluations, the same command goes on: ")
    again = subprocess.run(
        words, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "out" / "0.05" / "result.json").stat().st_mtime_ns == done
    assert len(read_record(tmp_path / "out" / "summary.json", Summary).rows) == 2


def test_one_that_fails_is_named_and_the_others_stay(
    call: Any, models: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 64)
    given = f"broken.safetensors,{models[0]}"
    code, out, err = call(
        "--model", given, "--dataset", "digits", "--eps", "0.1", *FEW, "--output", "out"
    )
    assert code == 1
    assert "1 of 2 failed: broken.safetensors, digits, eps 0.1, slf: " in err
    assert "is not a safetensors file" in err
    assert "model.safetensors" in out
    table = read_record(tmp_path / "out" / "summary.json", Summary)
    assert [len(table.rows), len(table.failed)] == [1, 1]
    assert "failed: broken" in (tmp_path / "out" / "summary.md").read_text()
    assert "% failed: broken" in (tmp_path / "out" / "summary.tex").read_text()


BAD = [
    ("--eps 0.1,0.10", "eps '0.10' is named twice (first as '0.1')"),
    ("--eps 0.2 --eps 0.1,0.2", "eps '0.2' is named twice; commas and the option"),
    ("--eps 8/255 --eps 0.03137254901960784", "is named twice"),
    ("--eps 0.1,8", "did you mean 8/255"),
    ("--eps 0.1,", "--eps '0.1,' has an empty part"),
    ("--eps 0.1 --probe slf,alff", "did you mean 'ALF'"),
    ("--eps 0.1 --model none.safetensors", "no file none.safetensors"),
    ("--eps 0.1,0.2 --dataset digitz", "did you mean 'digits'"),
    ("--eps 0.1 --norm L2 --norm Linf", "--norm is given twice"),
    ("--eps 0.1 --seed 1 --seed=2", "--seed is given twice"),
    ("--eps 0.1 --limit 3 --n-examples 4", "--limit is given twice"),
    ("--eps 0.1 --summary t.xls", "a summary is written as .json, .md, .tex"),
    ("--eps 0.1 --summary mine.md", "mine.md is there already"),
    ("--config none.yaml", "none.yaml"),
    ("--config list.yaml", "holds no options"),
    ("--config typo.yaml", "no option 'epz'; did you mean 'eps'"),
    ("--config twice.yaml", "says 'eps' twice"),
    ("--config both.yaml", "'battery' is --attacks, which is there twice"),
    ("--config flag.yaml", "overwrite is true or false, not 'yes please'"),
    ("--config nested.yaml", "eps is text, a number or a list of them"),
    ("--config many.yaml", "norm takes one value, not ['L2', 'Linf']"),
    ("--config half.yaml", "'1.5' is not a whole number"),
    ("--config alias.yaml", "it has an alias"),
]
FILES = {
    "mine.md": "# my own notes\n",
    "list.yaml": "[1, 2]\n",
    "typo.yaml": "epz: 0.1\n",
    "twice.yaml": "eps: 0.1\neps: 0.2\n",
    "both.yaml": "attacks: pgd\nbattery: quick\n",
    "flag.yaml": "overwrite: yes please\n",
    "nested.yaml": "eps: {a: 1}\n",
    "many.yaml": "norm: [L2, Linf]\n",
    "half.yaml": "limit: 1.5\n",
    "alias.yaml": "eps: &a [1]\nseed: *a\n",
}


@pytest.mark.parametrize(("words", "message"), BAD, ids=[w for w, _ in BAD])
def test_bad_lists_and_files_get_one_clear_error(
    words: str, message: str, call: Any, models: list[Path], tmp_path: Path
) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    before = sorted(tmp_path.iterdir())
    more = [*words.split(), *FEW[2:], "--output", "out", "--model", str(models[0])]
    more += ["--dataset", "digits"] * ("--dataset" not in words)
    code, out, err = call(*more)
    assert (code, out) == (2, ""), err
    assert message in " ".join(err.replace("│", " ").split())
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_a_file_holds_what_the_command_line_would(
    call: Any, models: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "eval.yaml").write_text(
        f"model: ['{models[0]}']\ndataset: digits\neps: [0.05, 0.1]\nlimit: 10\n"
        "attacks: fgsm\nhealth: none\nlabels: 40\nbatch_size: 5\nseed: 3\n"
    )
    words = ["--eps", "0.2", "--output", "a", "--json"]
    code, out, err = call("--config", "eval.yaml", *words)
    assert code == 0, err
    assert json.loads(out)["threat"]["eps"] == 0.2, "the command line goes first"
    recorded = read_result(tmp_path / "a" / "result.json").provenance.command
    assert recorded[1:4] == ["--eps", "0.2", "--json"], "where files lie is left out"
    held = recorded[recorded.index("--model") :]
    assert "--config" not in recorded
    assert held[held.index("--seed") + 1] == "3"
    assert "0.05" not in recorded
    words = ["--dataset", "digits", "--eps", "0.2", "--seed", "3", "--batch-size", "5"]
    code, _, err = call("--model", models[0], *words, *FEW, "--output", "b")
    assert code == 0, err
    assert figures(tmp_path / "a") == figures(tmp_path / "b")
    code, _, err = call("--config", "eval.yaml", "--output", "c")
    assert code == 0, err
    assert len(read_record(tmp_path / "c" / "summary.json", Summary).rows) == 2


def test_runs_that_would_share_a_folder_are_told_apart_or_refused(
    call: Any, models: list[Path]
) -> None:
    words = ["--dataset", "digits", "--eps", "0.1", *FEW]
    code, _, err = call("--model", models[0], "--model", models[1], *words)
    assert code == 2
    assert "name a folder for all of them (--output FOLDER)" in err


@pytest.mark.parametrize("other", ["a/ENC.pt", "a/e+nc.pt", "b/e-nc.pt"])
def test_words_stay_apart_as_names_of_folders(other: str) -> None:
    first = "a/enc.pt" if other == "a/ENC.pt" else "a/e-nc.pt"
    words = words_for([first, other, first], lambda path: Path(path).stem)
    folders = [safe_name(word).casefold() for word in words]
    assert folders[0] == folders[2] != folders[1]


def test_runs_whose_words_join_to_one_name_are_refused(tmp_path: Path) -> None:
    pairs = [("a-fashion", "mnist"), ("a", "fashion-mnist"), ("a", "digits")]
    requests = [
        Request(model=f"zoo:{model}", dataset=dataset, output=tmp_path)
        for model, dataset in pairs
    ]
    with pytest.raises(UserError, match="would share the folder"):
        placed(requests)
    assert len({request.output for request in placed(requests[1:])}) == 2


def test_the_usual_folders_have_a_summary_among_them(
    call: Any, models: list[Path], tmp_path: Path
) -> None:
    words = ["--model", models[0], "--dataset", "digits", "--eps", "0.1,0.2", *FEW]
    code, _, err = call(*words)
    assert code == 0, err
    (path,) = tmp_path.glob("runs/summary-model-digits-0.1-0.2-slf-*.json")
    for row in read_record(path, Summary).rows:
        assert (path.parent / str(row.folder) / "result.json").is_file()


def test_values_of_the_environment_are_whole_lines(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "robrep_eval", "run", "--attacks", "none"],
        env={
            "ROBREP_RUN_MODEL": f"{tmp_path}/my own.safetensors",
            "ROBREP_HOME": str(tmp_path),
            "PYTHONPATH": ":".join(filter(None, sys.path)),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2
    assert "my own.safetensors" in found.stderr


def test_commas_in_paths_that_are_there_part_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a,b"
    folder.mkdir()
    named = f"imagefolder:{folder}"
    assert split_values("dataset", [named, "x,y"]) == [named, "x", "y"]
    shaped = f"{named}@3x8x8"
    assert split_values("dataset", [shaped]) == [shaped]
    assert split_values("model", [str(folder), "p,q"]) == [str(folder), "p", "q"]


def test_lists_in_python_make_the_same_table(tmp_path: Path) -> None:
    class Mine(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    x, y = torch.rand(40, 1, 4, 4), torch.arange(40) % 2
    options: dict[str, Any] = {"attacks": "fgsm", "measure": ()}
    table = evaluate_all(
        [Mine(), Mine()],
        (x, y),
        train=(x, y),
        eps=[0.1, "8/255"],
        output=tmp_path / "out",
        **options,
    )
    folders = [row.folder for row in table.rows]
    assert folders == ["Mine-1-0.1", "Mine-1-8-255",
                       "Mine-2-0.1", "Mine-2-8-255"]  # fmt: skip
    one = evaluate(Mine(), (x, y), train=(x, y), eps=0.1, **options)
    assert (table.rows[2].clean, table.rows[2].robust) == (one.clean, one.robust)
    assert table.failed == []
    assert (tmp_path / "out" / "summary.md").is_file()
    assert list(table.to_pandas()["eps"]) == [0.1, 8 / 255] * 2
    assert table.save(tmp_path / "again.md").read_text().endswith(table.to_markdown())
    for wrong in ({"eps": [0.1, 0.2]}, {"eps": 0.1, "probe": ["slf", "alf"]}):
        with pytest.raises(UserError, match="evaluate_all"):
            evaluate(Mine(), (x, y), **wrong, **options)
    with pytest.raises(UserError, match="with one dataset"):
        evaluate_all(Mine(), [(x, y), (x, y)], train=(x, y), eps=0.1)
    with pytest.raises(UserError, match="empty"):
        evaluate_all([], (x, y), eps=0.1)


def test_modules_that_look_alike_have_probes_of_their_own() -> None:
    class Pixel(torch.nn.Module):
        def __init__(self, at: int) -> None:
            super().__init__()
            self.at = at

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, self.at : self.at + 3]

    y = torch.arange(40) % 2
    x = torch.rand(40, 1, 4, 4, generator=torch.Generator().manual_seed(0)) / 2
    x[:, 0, 0, 0] += y / 2
    table = evaluate_all(
        [Pixel(4), Pixel(0)], (x, y), train=(x, y), eps=0.01, attacks="none", measure=()
    )
    assert [row.clean.value == 1 for row in table.rows] == [False, True]


def test_what_breaks_unexpectedly_in_python_is_a_row_too() -> None:
    class Breaks(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError("of mine")

    x, y = torch.rand(8, 1, 4, 4), torch.arange(8) % 2
    table = evaluate_all(
        [Breaks(), torch.nn.Flatten()], (x, y), train=(x, y), eps=0.1, attacks="fgsm",
        measure=(),
    )  # fmt: skip
    assert [row.model for row in table.rows] == ["module:Flatten"]
    assert "of mine" in table.failed[0].error


def test_the_mean_over_classes_stands_where_the_field_states_it(
    call: Any, tmp_path: Path
) -> None:
    """Caltech-101 in small: two test images of one class, one of the other."""
    photo_layouts.caltech(tmp_path)
    spec = EncoderSpec(
        arch="resnet_s8", options={"widths": [4, 8], "blocks": [1, 1]}, shape=(3, 8, 8)
    )
    torch.manual_seed(0)
    save_encoder(Encoder(spec), tmp_path / "e.safetensors")
    code, out, err = call(
        *("--model", "e.safetensors", "--dataset", "caltech-101@3x8x8"),
        *("--data-dir", ".", "--attacks", "fgsm", "--health", "none"),
        *("--eps", "0.3", "--output", "run"),
    )
    assert code == 0, err
    result = read_result(tmp_path / "run")
    assert result.per_class is not None
    labels = result.examples.label
    assert labels == [0, 0, 1]
    hits = [
        a == b for a, b in zip(labels, result.examples.clean_prediction, strict=True)
    ]
    mean = (sum(hits[:2]) / 2 + hits[2]) / 2
    assert result.per_class.clean == mean
    assert f"clean {mean:.1%}" in out
    assert "Mean over 2 classes" in out
    table = Summary(
        battery="x", engine="y", rows=[SummaryRow.of(result, None)], failed=[]
    )
    assert "robust per class" in table.to_markdown()
    assert [*verify_folder(tmp_path / "run", data_dir=tmp_path)]
    altered = result.model_copy(
        update={"per_class": result.per_class.model_copy(update={"clean": 0.123})}
    )
    with pytest.raises(VerificationError, match="clean accuracy per class"):
        check_figures(altered)
