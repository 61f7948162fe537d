"""What is exported is what the other side's own schema or reader accepts."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results
from jsonschema import Draft7Validator

from zoo.collection.entries import read_entry
from zoo.collection.model_card import HUB_DATASETS
from zoo.collection.opening import open_source
from zoo.collection.sources import Source
from zoo.errors import UserError
from zoo.records import Result
from zoo.repository.every_eval_ever import SCHEMA
from zoo.repository.exporting import export

HERE = Path(__file__).parent
SCHEMA_TEXT = json.loads((HERE / "eval.schema.json").read_text())
UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\.json"


@pytest.fixture(scope="module")
def source() -> Source:
    return open_source("embedded")


@pytest.fixture(scope="module")
def results(source: Source) -> dict[str, Result]:
    """Of all embedded entries, by ENCODER/ENTRY."""
    return {
        f"{row.card.name}/{name}": read_entry(source, row, name).result
        for row in source.index.encoders
        for name in row.entries
    }


def test_every_record_is_valid_under_the_shared_schema(
    source: Source, results: dict[str, Result], tmp_path: Path
) -> None:
    assert SCHEMA_TEXT["version"] == SCHEMA
    Draft7Validator.check_schema(SCHEMA_TEXT)
    validator = Draft7Validator(SCHEMA_TEXT)
    paths = export(source, tmp_path, "every-eval-ever", developer="someone")
    assert len(set(paths)) == len(results)
    told = {}
    for path in paths:
        content = json.loads(path.read_text())
        assert not [error.message for error in validator.iter_errors(content)]
        *place, name = path.relative_to(tmp_path).parts
        assert place == ["data", "robrep", *content["model_info"]["id"].split("/")]
        assert re.fullmatch(UUID4, name)
        scores = [r["score_details"]["score"] for r in content["evaluation_results"]]
        told[content["source_metadata"]["source_name"].split()[1]] = scores
    assert told == {
        name: [r.clean.value, r.robust.value] for name, r in results.items()
    }
    before = {path: path.read_bytes() for path in paths}
    assert export(source, tmp_path, "every-eval-ever", developer="someone") == paths
    assert before == {path: path.read_bytes() for path in paths}


def test_the_schema_refuses_what_is_none(source: Source, tmp_path: Path) -> None:
    """That the check above can fail."""
    path = export(source, tmp_path, "every-eval-ever")[0]
    for field in ("eval_library", "model_info", "evaluation_results"):
        content = json.loads(path.read_text())
        del content[field]
        assert list(Draft7Validator(SCHEMA_TEXT).iter_errors(content))


def test_every_card_is_one_that_the_hub_reads(
    source: Source, results: dict[str, Result], tmp_path: Path
) -> None:
    paths = export(source, tmp_path, "model-card")
    cards = [path for path in paths if path.name == "README.md"]
    assert [path.parent.name for path in cards] == source.index.names()
    for path in cards:
        data: Any = ModelCard.load(path).data
        name, found = model_index_to_eval_results(data.to_dict()["model-index"])
        assert name == path.parent.name
        values = [each.metric_value for each in found]
        own = [r for key, r in results.items() if key.split("/")[0] == name]
        assert sorted(values) == sorted(
            v.value for r in own for v in (r.clean, r.robust)
        )
        on_hub = [r for r in own if r.dataset.name in HUB_DATASETS]
        scores = path.parent / ".eval_results" / "robrep.yaml"
        assert scores.is_file() is bool(on_hub)
        if on_hub:
            rows = parse_eval_result_entries(yaml.safe_load(scores.read_text()))
            assert sorted(row.value for row in rows) == sorted(
                v.value for r in on_hub for v in (r.clean, r.robust)
            )


@pytest.mark.parametrize(
    ("form", "developer", "message"),
    [("csv", "x", "no form 'csv'"), ("model-card", "../x", "cannot name"),
     ("every-eval-ever", "data", "cannot name")],
)  # fmt: skip
def test_what_cannot_be_is_refused(
    source: Source, tmp_path: Path, form: str, developer: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(source, tmp_path / "out", form, developer=developer)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", ["model-card", "every-eval-ever"])
def test_files_of_the_user_stay(source: Source, tmp_path: Path, form: str) -> None:
    paths = export(source, tmp_path, form)
    paths[-1].write_text("mine")
    paths[0].unlink()
    with pytest.raises(UserError, match="exists already with other content"):
        export(source, tmp_path, form)
    assert paths[-1].read_text() == "mine"
    assert not paths[0].exists(), "nothing half-written"
