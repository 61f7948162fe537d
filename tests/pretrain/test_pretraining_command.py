"""robrep-pretrain as people type it, in real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pretrain.cli import assemble, command
from zoo.errors import UserError

FLAGS = {"method": None, "data": None, "epochs": None, "norm": None, "eps": None}


def _run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pretrain", *words],
        cwd=cwd,
        env={
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PATH": "",
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_help_and_list_import_no_torch() -> None:
    code = (
        "import sys; from pretrain.cli import command\n"
        "for words in (['--help'], ['--list']):\n"
        "    command(words, standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "tarrl-digits" in done.stdout
    assert "dynacl++" in done.stdout


def test_examples_of_the_help_are_lines_of_their_own() -> None:
    found = CliRunner().invoke(command, ["--help"]).output
    examples = [line.strip() for line in found.split("Examples:")[1].splitlines()]
    assert "robrep-pretrain tarrl-digits" in examples
    assert "\\" not in "".join(examples)


def test_bad_input_is_one_line_with_code_2(tmp_path: Path) -> None:
    done = _run("tarrl-digits", "-o", "optimizer.lrr=1", cwd=tmp_path)
    assert done.returncode == 2
    assert (
        done.stderr
        == "Error: recipe: unknown key 'optimizer.lrr'; did you mean 'lr'?\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_small_run_from_flags(tmp_path: Path) -> None:
    done = _run(
        *("--method", "simclr", "--epochs", "1", "--batch", "64"),
        *("-o", "limit=100", "-o", "arch_options.widths=[4,8]"),
        *("-o", "arch_options.blocks=[1,1]", "-o", "monitor.every=0"),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "runs/simclr-digits/last\n"
    assert "1 epochs of 1 steps" in done.stderr
    card = (tmp_path / "runs/simclr-digits/last/card.json").read_text()
    assert "robrep-pretrain --method simclr --epochs 1 --batch 64 -o limit=100" in card


def test_explain_prints_every_setting_in_force() -> None:
    shown = CliRunner().invoke(command, ["tarrl-digits", "--explain"]).output
    assert "weight: 40" in shown
    assert "distance: squared" in shown  # a default of the method


def test_flags_and_overrides_change_a_recipe() -> None:
    flags = {**FLAGS, "norm": "l2", "eps": "16/255", "epochs": 7}
    recipe = assemble("tarrl-digits", flags, ("seed=3", "attack.steps=2"))
    assert recipe.threat is not None
    assert (recipe.threat.norm, recipe.threat.eps) == ("L2", 16 / 255)
    assert (recipe.epochs, recipe.seed, recipe.attack.steps) == (7, 3, 2)


@pytest.mark.parametrize(
    ("method", "data", "name"),
    [
        ("simclr", None, "simclr-digits"),
        ("dynacl++", None, "dynacl-pp-digits"),
        ("simclr", "imagefolder:/data/My Cats & Dogs", "simclr-my-cats-dogs"),
    ],
)
def test_a_run_without_a_name_gets_a_valid_one(
    method: str, data: str | None, name: str
) -> None:
    flags = {**FLAGS, "method": method, "data": data, "eps": "0.1"}
    assert assemble(None, flags, ()).name == name


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({}, "name a recipe or a --method"),
        ({"method": "tarrl", "norm": "Linf"}, "needs a radius: --eps"),
        ({"method": "tarrl", "eps": "-1"}, "eps must be positive"),
        ({"method": "tarrl", "eps": "1", "norm": "L7"}, "unknown norm 'L7'"),
    ],
)
def test_bad_flags(flags: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        assemble(None, {**FLAGS, **flags}, ())


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("images:/a b/Photos@3x8x8", "simclr-photos-3x8x8"),
        ("images:/a b/Photos/@3x8x8", "simclr-photos-3x8x8"),
        ("imagefolder:/data/", "simclr-data"),
        ("imagelist:../all.csv", "simclr-all.csv"),
        ("digits@1x4x4", "simclr-digits-1x4x4"),
        (f"images:{'long' * 50}", f"simclr-{'long' * 50}"[:96]),
    ],
)
def test_a_run_is_named_by_its_method_and_the_last_part_of_its_data(
    data: str, name: str
) -> None:
    flags = FLAGS | {"method": "simclr", "data": data}
    assert assemble(None, flags, ()).name == name
