"""The command as people run it: exit codes, messages, files left behind."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from robrep_eval.commands.cli import main
from zoo.classifier import Classifier
from zoo.encoder import Encoder, save_encoder
from zoo.files import read_tensors, write_tensors
from zoo.records import Result
from zoo.result_file import read_result
from zoo.verification import verify_folder


@pytest.fixture(scope="module")
def encoder_file(
    plain_classifier: Classifier, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    save_encoder(encoder, path)
    return path


def _call(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    *words: str,
) -> tuple[int, str, str]:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["robrep-eval", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code, out, err


def _broken_files(folder: Path, encoder_file: Path) -> None:
    (folder / "pickled.pt").write_bytes(pickle.dumps({"model": os.system}))
    (folder / "corrupt.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    (folder / "corrupt.safetensors").write_bytes(b"\xff" * 100)
    torch.save({"linear.weight": torch.zeros(10, 4)}, folder / "misfit.pt")
    tensors, metadata = read_tensors(encoder_file)
    tensors["backbone.conv1.weight"][0, 0, 0, 0] = torch.nan
    write_tensors(folder / "nan.safetensors", tensors, metadata)


BAD = [
    ("--model zoo:tarl-digits", "no encoder 'tarl-digits'"),
    ("--model tarrl", "unknown model 'tarrl'"),
    ("--model none.safetensors", "no file none.safetensors"),
    ("--model E --dataset cifar", "did you mean 'cifar10'"),
    ("--model E --dataset digits --attacks standart", "did you mean 'standard'"),
    ("--model E --dataset digits --norm Linff", "did you mean 'Linf'"),
    ("--model E --dataset digits --eps -1", "positive and finite, not -1"),
    ("--model E --dataset digits --eps 0", "positive and finite, not 0"),
    ("--model E --dataset digits --eps nan", "must be a number or a fraction"),
    ("--model E --dataset digits --eps \u0661/255", "must be a number or a fraction"),
    ("--model E --dataset digits --limit \u0661\u0660", "not a whole number"),
    ("--model E --dataset digits --limit 1_0", "not a whole number"),
    ("--model E --dataset digits --seed \uff11", "not a whole number"),
    ("--model E --dataset digits --batch-size 1e2", "not a whole number"),
    ("--model E --dataset digits --chunk-size \u0668", "not a whole number"),
    ("--model E --dataset digits --samples 1_0", "not a whole number"),
    ("--model E --dataset digits --sigma nan", "not a number"),
    ("--model E --dataset digits --l2 \u0660.1", "not a number"),
    ("--model E --dataset digits --labels \u0661\u0660%", "neither a share"),
    ("--model E --dataset digits --normalize \u0660/\u0661", "is not MEAN/STD"),
    ("--model E --dataset digits --normalize=", "is not MEAN/STD"),
    ("--model E --dataset digits@1x\u0668x8", "is no shape"),
    ("--model E --dataset digits --attacks=", "an attack without a name"),
    ("--model E --dataset digits --attacks fgsm,", "an attack without a name"),
    ("--model E --dataset digits --transfer-from=", "transfer"),
    ("--model E --dataset digits --eps 8", "did you mean 8/255"),
    ("--model E --dataset digits --limit 0", "--limit must be at least 1"),
    ("--model E --dataset digits --device gpu9", "device 'gpu9' cannot be used"),
    ("--model E --dataset digits --eps .1 --output F/x", "cannot write to"),
    ("--model pickled.pt --arch resnet_s8 --dataset digits", "refuses"),
    ("--model corrupt.pt --arch resnet_s8 --dataset digits", "corrupt.pt"),
    ("--model corrupt.safetensors --dataset digits", "not a safetensors file"),
    ("--model misfit.pt --arch resnet_s8 --dataset digits", "do not fit"),
    ("--model misfit.pt --dataset digits", "name it with --arch"),
    ("--model nan.safetensors --dataset digits", "NaN or infinity"),
    ("--model E --dataset imagefolder:nowhere --eps .1", "no folder nowhere/test"),
    ("--model robustbench:NoSuch2020Model --dataset digits", "no model 'NoSuch2020"),
    ("--model E --dataset digits --modle x", "No such option"),
    ("verfy x", "No such command 'verfy'"),
    ("verify nowhere", "no result.json in nowhere"),
]


@pytest.mark.parametrize(("words", "message"), BAD, ids=[w for w, _ in BAD])
def test_bad_input_gets_one_clear_error(
    words: str,
    message: str,
    encoder_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _broken_files(tmp_path, encoder_file)
    (tmp_path / "F").write_text("a file where a folder should be")
    before = sorted(tmp_path.rglob("*"))
    typed = [str(encoder_file) if w == "E" else w for w in words.split()]
    code, out, err = _call(monkeypatch, capsys, tmp_path, *typed)
    assert code == 2
    assert message in " ".join(err.split())
    assert "Traceback" not in err
    assert out == ""
    left = [p for p in tmp_path.rglob("*") if "robrep-home" not in p.parts]  # its locks
    assert sorted(left) == before, "nothing is left behind"


def test_json_is_the_record_and_progress_stays_on_stderr(
    encoder_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [
        "--dataset",
        "digits",
        "--eps",
        "0.1",
        "--attacks",
        "fgsm",
        "--limit",
        "12",
        "--json",
    ]
    code, out, err = _call(
        monkeypatch, capsys, tmp_path, "--model", str(encoder_file), *words
    )
    assert code == 0
    (folder,) = (tmp_path / "runs").glob("*/*")
    assert folder.name == "digits-linf-0.1-fgsm-n12"
    assert Result.model_validate_json(out) == read_result(folder)
    assert "attacking 12 images within Linf 0.1" in err
    code, out, err = _call(
        monkeypatch, capsys, tmp_path, "-q", "--model", str(encoder_file), *words[:-1]
    )
    assert (code, err.splitlines()) == (0, [f"saved in {folder.relative_to(tmp_path)}"])
    assert "fgsm" in out
    assert "re-checked" in out
    code, out, _ = _call(monkeypatch, capsys, tmp_path, "verify", str(folder))
    assert code == 0
    assert out.count("ok ") == len(verify_folder(folder))


def test_help_and_completion_answer_without_torch() -> None:
    code = """
import sys
from robrep_eval.commands.cli import cli
from robrep_eval.commands.run_options import known_names
from click.testing import CliRunner
assert "Examples" in CliRunner().invoke(cli, ["--help"]).output
assert "--eps" in CliRunner().invoke(cli, ["run", "--help"]).output
assert "digits" in known_names("dataset") and "standard" in known_names("attack")
known_names("model")
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_result(
    encoder_file: Path, tmp_path: Path
) -> None:
    """SIGKILL in the middle; the same command again ends as an uninterrupted run."""
    words = [sys.executable, "-m", "robrep_eval", "run", "--model", str(encoder_file)]
    words += ["--dataset", "digits", "--eps", "0.1", "--limit", "16"]
    words += ["--chunk-size", "4", "--health", "none", "--l2", "0.01"]
    words += ["--attacks", "pgd", "--output"]
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    process = subprocess.Popen(
        [*words, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while len(list(killed.glob("chunks/*.safetensors"))) < 2:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert not (killed / "result.json").exists()
    for folder in (killed, whole):
        subprocess.run([*words, str(folder)], check=True, capture_output=True)
    one, two = (read_result(folder) for folder in (killed, whole))
    assert one.examples == two.examples
    assert one.robust == two.robust
    assert one.evidence.file_sha256 == two.evidence.file_sha256


def test_normalize_is_what_the_encoder_would_do_itself(
    plain_classifier: Classifier,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """A bare checkpoint with --normalize beside the encoder that knows its own."""
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    own = Encoder(encoder.spec.model_copy(update={"mean": (0.3,), "std": (0.01,)}))
    own.load_state_dict(encoder.state_dict())
    save_encoder(own, tmp_path / "own.safetensors")
    bare = {k.removeprefix("backbone."): v for k, v in encoder.state_dict().items()}
    torch.save(bare, tmp_path / "bare.pt")
    arch = ["--arch", encoder.spec.arch]
    for key, value in encoder.spec.options.items():
        arch += ["--arch-option", f"{key}={value}"]

    def found(name: str, *words: str) -> list[int]:
        rest = ["--dataset", "digits", "--attacks", "none", "-q", "--l2", "0.01"]
        rest += ["--labels", "10%", "--health", "none", "--output", name]
        code, _, err = _call(monkeypatch, capsys, tmp_path, *words, *rest)
        assert code == 0, err
        return read_result(tmp_path / name).examples.clean_prediction

    expected = found("a", "--model", "own.safetensors")
    model = ("--model", "bare.pt", *arch)
    assert found("b", *model, "--normalize", "0.3/0.01") == expected
    assert found("c", *model) != expected
