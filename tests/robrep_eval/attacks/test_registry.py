"""The table of attacks, and attacks of other packages in it.

Two toys (`toy_darker`, `toy_corner`), a file each, are put on the path as an installed
package has it: with an entry point in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyautoattack import AutoAttack
from torch import nn

from robrep_eval import evaluate
from robrep_eval.attacks.base import Attack
from robrep_eval.attacks.battery import ENGINES, build
from robrep_eval.attacks.reference import Version
from robrep_eval.attacks.registry import GROUP, known, registry
from robrep_eval.commands.cli import cli
from robrep_eval.run.chunk import BatterySettings
from zoo.classifier import Classifier
from zoo.collection.entries import read_entry
from zoo.collection.store import opened
from zoo.errors import UserError
from zoo.threat import NORMS, Norm
from zoo.verification import verify_folder

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package on the path that has these entry points, "module:attribute"."""

    def installed(*rows: str) -> None:
        info = tmp_path / "site" / "toys-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Name: toys\nVersion: 1.0\n")
        lines = [f"row{at} = {row}\n" for at, row in enumerate(rows)]
        (info / "entry_points.txt").write_text(f"[{GROUP}]\n" + "".join(lines))
        (tmp_path / "site" / "toy_broken.py").write_text(
            "raise RuntimeError('no such device')"
        )
        (tmp_path / "site" / "toy_capital.py").write_text(
            "from robrep_eval.attacks.registry import AttackInfo\n"
            "ROW = AttackInfo(name='Toy', build='toy:TOY', summary='')"
        )
        monkeypatch.syspath_prepend(tmp_path / "site")
        registry.cache_clear()

    yield installed
    registry.cache_clear()


def test_an_attack_is_one_file_and_one_row(
    install: Install, plain_classifier: Classifier, tmp_path: Path
) -> None:
    install("toy_darker:ROW", "toy_corner:ROW")
    result = evaluate(
        plain_classifier,
        dataset="digits",
        eps=0.2,
        attacks="toy-darker,toy-corner",
        limit=16,
        settings=BatterySettings(chunk_size=8, batch_size=6),
        measure=(),
        output=tmp_path / "run",
    )
    darker, corner = result.attacks
    assert (darker.engine, darker.parameters) == ("toys 1.0", {"direction": "down"})
    assert corner.parameters["targets"] == 5
    assert corner.engine.startswith("robrep")
    assert corner.fooled > 0
    assert darker.attempted == corner.attempted == result.clean.k
    assert verify_folder(tmp_path / "run")
    assert "toy-corner" in known()
    listed = CliRunner().invoke(cli, ["list"]).output
    assert "toy-darker" in listed
    assert "one corner for every class" in listed


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["toy_darker:ROW", "toy_darker:ROW"], "'toy-darker' of .* already exists"),
        (["toy_nowhere:ROW"], "'toy_nowhere:ROW' cannot be imported .*uninstall"),
        (["toy_darker:MISSING"], "'toy_darker:MISSING' cannot be imported"),
        (["toy_corner:ROW", "toy_broken:ROW"], "RuntimeError: no such device"),
        (["toy_capital:ROW"], "'Toy' of .* could not be named after --attacks"),
        (["toy_darker:DARKER"], "is a Darker; let it name .*AttackInfo"),
    ],
)
def test_rows_that_cannot_be_taken_are_named(
    install: Install, rows: list[str], said: str
) -> None:
    install(*rows)
    with pytest.raises(UserError, match=said):
        build("standard")


def test_every_row_makes_attacks_whose_settings_can_be_written() -> None:
    for name in known():
        attacks = build(name).attacks
        assert bool(attacks) == (name != "none")
        for attack in attacks:
            assert isinstance(attack, Attack)
            assert json.loads(json.dumps(attack.parameters)) == attack.parameters


def test_published_records_name_the_settings_that_still_run() -> None:
    source, count = opened(None), 0
    for row in source.index.encoders:
        for name in row.entries:
            result = read_entry(source, row, name).result
            engine, _, replayed = result.engine.partition(" ")
            battery = build(
                result.battery,
                engine,
                norm=result.threat.norm,
                randomness=replayed.strip("()") or "per-example",
            )
            told = [(a.name, a.sequence, dict(a.parameters)) for a in result.attacks]
            for _, _, parameters in told:
                parameters.pop("network", None)  # what was attacked is no setting
            runs = [(a.name, a.sequence, a.parameters) for a in battery.attacks]
            assert told == runs, f"{row.card.name}/{name}"
            count += 1
    assert count > 50


@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
@pytest.mark.parametrize("norm", NORMS)
def test_versions_are_the_peers(version: Version, norm: Norm) -> None:
    peer = AutoAttack(nn.Identity(), norm=norm, version=version)
    attacks = build(version, norm=norm).attacks
    assert [attack.name for attack in attacks] == peer.attacks_to_run
    for attack in attacks:
        told = attack.parameters
        if attack.name == "square":
            assert told["steps"] == peer.square.n_queries
        elif attack.name.startswith("fab"):
            assert told["steps"] == peer.fab.n_iter
            restarts = peer.fab.n_restarts if attack.name == "fab" else 1  # in its run
            assert told["restarts"] == restarts
            targets = peer.fab.n_target_classes if attack.name == "fab-t" else 0
            assert told.get("targets", 0) == targets
        else:
            twin = peer.apgd_targeted if attack.name == "apgd-t" else peer.apgd
            assert told["steps"] == twin.n_iter
            assert told["restarts"] == twin.n_restarts
            assert told["averaged"] == twin.eot_iter
            assert told["larger_radii"] == twin.use_largereps
            assert told.get("targets", 0) == getattr(twin, "n_target_classes", 0)


@pytest.mark.parametrize("norm", NORMS)
def test_a_member_alone_is_the_same_on_both_engines(norm: Norm) -> None:
    for name in ("apgd-ce", "apgd-dlr", "fab"):
        (own,), (theirs,) = (build(name, e, norm=norm).attacks for e in ENGINES)
        peer = AutoAttack(
            nn.Identity(), norm=norm, version=theirs.parameters["version"]
        )
        twin = peer.fab if name == "fab" else peer.apgd
        assert own.parameters["restarts"] == twin.n_restarts
        if name != "fab":
            assert own.parameters["larger_radii"] == twin.use_largereps


def test_both_engines_have_the_same_members() -> None:
    for name in ("standard", "plus", "rand", "apgd-dlr", "fab"):
        own, theirs = (build(name, engine).attacks for engine in ENGINES)
        assert [a.name for a in own] == [a.name for a in theirs]
        assert all(a.engine.startswith("pyautoattack") for a in theirs)
