"""A result in files: what is written is read again, what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from whole import read_whole, write_whole
from zoo_collection import ENTRY, Evaluated

from zoo.collection.audit import audit, plan
from zoo.collection.entries import read_entry
from zoo.collection.index import INDEX, FileRecord, scan, write_index
from zoo.collection.publish import Publication, publish
from zoo.collection.sources import FolderSource
from zoo.collection.sources_embedded import EMBEDDED_FOLDER
from zoo.columns import places
from zoo.errors import UserError, VerificationError
from zoo.files import read_json, sha256_file, write_json, write_text
from zoo.records import Result
from zoo.result_file import PATTERN, read_result, write_result
from zoo.schema import WIDTH, as_text

LIPSCHITZ = EMBEDDED_FOLDER / "lipschitz-digits" / "entries" / "digits-l2-0.25-slf"
OLD = Path(__file__).parent / "schema_1"
OLD_ENTRY = "digits-linf-0.02-slf-fgsm-pgd"
"""A collection that robrep wrote when results were of schema 1."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON.filter(lambda value: "Infinity" not in json.dumps(value)))
def test_text_for_people_is_the_same_json(value: Any) -> None:
    text = as_text(value)
    assert json.loads(text) == value
    assert json.dumps(json.loads(text)) == json.dumps(value)  # in the same order


def test_what_fits_stays_on_one_line() -> None:
    value = {"a": {"b": 1, "c": [1, 2]}, "long": list(range(100)), "empty": []}
    lines = as_text(value).splitlines()
    assert lines[1] == '  "a": {"b": 1, "c": [1, 2]},'
    assert len(lines) < 12
    assert max(map(len, lines)) <= WIDTH + 1


def test_a_result_comes_back_as_it_was(tmp_path: Path) -> None:
    result = read_result(LIPSCHITZ)
    assert result.measurements.lipschitz is not None
    name = write_result(tmp_path, result)
    assert read_result(tmp_path) == result
    assert read_result(tmp_path / "result.json") == result
    assert (tmp_path / name).read_bytes() == (LIPSCHITZ / name).read_bytes()


def test_the_record_is_short_and_tells_the_story_in_order(tmp_path: Path) -> None:
    write_result(tmp_path, read_result(LIPSCHITZ))
    text = (tmp_path / "result.json").read_text()
    assert len(text) < 15_000
    keys = list(json.loads(text))
    story = ["model", "dataset", "threat", "clean", "robust", "measurements"]
    story += ["attacks", "evidence", "provenance", "columns"]
    assert [key for key in keys if key in story] == story
    assert next(iter(json.loads(text)["measurements"])) == "health"
    longest = max(
        (len(found) for found in _lists(json.loads(text))), default=0
    )  # no list is as long as there are examples
    assert longest < 30


def _lists(value: Any) -> list[list[Any]]:
    inner = value.values() if isinstance(value, dict) else value
    if not isinstance(value, dict | list):
        return []
    own = [value] if isinstance(value, list) else []
    return own + [found for item in inner for found in _lists(item)]


def test_columns_are_compact_and_open_to_other_programs(tmp_path: Path) -> None:
    result = read_result(LIPSCHITZ)
    columns = load_file(tmp_path / write_result(tmp_path, result))
    assert columns["examples/label"].dtype == np.uint8
    assert columns["examples/index"].dtype == np.int16
    assert columns["examples/outcomes/apgd-ce"].dtype == np.uint8
    bound = result.measurements.bound
    assert bound is not None
    margin = columns["measurements/bound/examples/margin"]
    assert margin.tolist() == bound.examples["margin"]


def test_every_list_with_a_value_per_example_is_a_column() -> None:
    found = {"/".join(place.path) for place in places(Result)}
    assert found == {
        *(f"examples/{name}" for name in ("index", "label", "clean_prediction")),
        *(f"examples/{name}" for name in ("verdict", "outcomes")),
        "measurements/bound/examples",
        *(f"measurements/smoothing/{n}" for n in ("index", "prediction", "radius")),
        "measurements/lipschitz/radius",
    }


def test_record_and_columns_change_together(tmp_path: Path) -> None:
    """Whoever is stopped between the two writes leaves the old pair, whole."""
    old = read_result(LIPSCHITZ)
    changed = old.model_copy(
        update={
            "examples": old.examples.model_copy(
                update={"clean_prediction": [3] * len(old.examples.index)}
            )
        }
    )
    run, other = tmp_path / "run", tmp_path / "other"
    write_result(run, old)
    shutil.copy(other / write_result(other, changed), run)  # as far as a kill got
    assert read_result(run) == old
    write_result(run, changed)
    assert read_result(run) == changed
    assert len(list(run.glob(PATTERN))) == 1


def test_a_collection_of_schema_1_is_read_verified_and_added_to(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    content = read_json(OLD / "tiny-digits" / "entries" / OLD_ENTRY / "result.json")
    assert content["schema_version"] == 1
    source = FolderSource(OLD)
    published = read_entry(source, source.find("tiny-digits"), OLD_ENTRY)
    result = published.result
    assert result.examples.model_dump(mode="json") == content["examples"]
    assert result.robust.k == content["robust"]["k"]
    assert result.measurements.bound is not None
    bound = content["extras"]["bound"]["examples"]
    assert result.measurements.bound.examples == bound
    assert result.measurements.smoothing is not None
    assert (
        result.measurements.smoothing.radius == content["extras"]["smoothing"]["radius"]
    )
    assert all(audit(source, item, data_dir=None).holds for item in plan(source, None))
    root = tmp_path / "zoo"
    shutil.copytree(OLD, root)
    request = Publication(runs=[evaluated.other_run], source=str(OLD))
    assert publish(request, str(root)).added == ("digits-l2-0.01-slf-v2-fgsm",)
    grown = FolderSource(root)
    assert all(audit(grown, item, data_dir=None).holds for item in plan(grown, None))


def test_measurements_that_schema_1_had_and_nobody_knows_are_left_out(
    tmp_path: Path,
) -> None:
    place = OLD / "tiny-digits" / "entries" / OLD_ENTRY
    content = read_json(place / "result.json")
    content["extras"]["horoscope"] = {"sign": "ram"}
    write_json(tmp_path / "result.json", content)
    assert read_result(tmp_path) == read_result(place)
    content["extras"] = []
    write_json(tmp_path / "result.json", content)
    with pytest.raises(UserError, match="measurements"):
        read_result(tmp_path)


def _columns(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A file of columns that the record names, with something else in it."""

    def spoil(folder: Path) -> None:
        (path,) = folder.glob(PATTERN)
        columns = load_file(path)
        words = read_json_metadata(path)
        change(columns)
        save_file(columns, path, {"codes": json.dumps(words)})
        _name(folder, path)

    return spoil


def _name(folder: Path, path: Path) -> None:
    record = read_json(folder / "result.json")
    record["columns"]["file_sha256"] = sha256_file(path)
    write_json(folder / "result.json", record)


def read_json_metadata(path: Path) -> Any:
    """The words of coded columns, read by hand."""
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    return json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["codes"])


def _retype(key: str, dtype: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda columns: columns.update({key: columns[key].astype(dtype)})


def _garbage(folder: Path) -> None:
    (path,) = folder.glob(PATTERN)
    path.write_bytes(b"not a tensor in sight")
    _name(folder, path)


def _words(value: object) -> Callable[[Path], None]:
    return lambda folder: _raw_words(folder, json.dumps(value))


def _raw_words(folder: Path, text: str) -> None:
    (path,) = folder.glob(PATTERN)
    save_file(load_file(path), path, {"codes": text})
    _name(folder, path)


def _record(**changes: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        record = read_json(folder / "result.json")
        write_json(folder / "result.json", {**record, **changes})

    return spoil


LABEL = "examples/label"
VERDICT = "examples/verdict"
BOUND = "measurements/bound/examples/b1"
RADIUS = "measurements/lipschitz/radius"
SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "no columns": (lambda f: next(f.glob(PATTERN)).unlink(), "no file .*columns-"),
    "other columns": (
        lambda f: write_text(next(f.glob(PATTERN)), "x"),
        "does not have the SHA-256",
    ),
    "garbage": (_garbage, "does not hold the columns"),
    "unnamed": (_record(columns=None), "columns"),
    "elsewhere": (
        _record(columns={"file": "../x", "file_sha256": "0" * 64}),
        "columns is not a valid columns file: file",
    ),
    "no label": (_columns(lambda c: c.pop(LABEL)), "examples.label: Field required"),
    "short": (
        _columns(lambda c: c.update({LABEL: c[LABEL][:-1]})),
        "columns of examples differ in length",
    ),
    "short bound": (
        _columns(lambda c: c.update({BOUND: c[BOUND][:-1]})),
        "columns of examples differ in length",
    ),
    "short radius": (
        _columns(lambda c: c.update({RADIUS: c[RADIUS][1:]})),
        "not one value per example",
    ),
    "rank": (
        _columns(lambda c: c.update({LABEL: c[LABEL].reshape(-1, 1)})),
        r"column 'examples/label' is U8 of shape \[360, 1\]",
    ),
    "real labels": (_columns(_retype(LABEL, np.float64)), "is F64 of shape"),
    "float32": (_columns(_retype(BOUND, np.float32)), "is F32 of shape"),
    "bool": (_columns(_retype(VERDICT, np.bool_)), "is BOOL of shape"),
    "wide codes": (_columns(_retype(VERDICT, np.int64)), "is I64 of shape"),
    "code without a word": (
        _columns(lambda c: c[VERDICT].fill(77)),
        "'examples/verdict' has a code without a word",
    ),
    "not finite": (
        _columns(lambda c: c[BOUND].fill(np.nan)),
        "examples/b1' is not finite",
    ),
    "negative label": (
        _columns(lambda c: c.update({LABEL: c[LABEL].astype(np.int16) - 1})),
        "examples.label.0",
    ),
    "unknown column": (
        _columns(lambda c: c.update({"examples/mood": c[LABEL]})),
        "no column is called 'examples/mood'",
    ),
    "column of nothing": (
        _columns(
            lambda c: c.update({"measurements/smoothing/index": c[LABEL]}),
        ),
        "measurements.smoothing",
    ),
    "no words": (_words({}), "has a code without a word"),
    "words that are none": (_words([1, 2]), "codes are no lists of words"),
    "deep words": (
        lambda f: _raw_words(f, "[" * 100_000),
        "metadata is (not valid JSON|refused)",
    ),
    "words of numbers": (_words({VERDICT: [1, 2]}), "codes are no lists of words"),
    "foreign words": (
        _words({VERDICT: ["splendid"] * 9}),
        "has a code without a word|examples.verdict.0",
    ),
    "both": (_record(examples={"label": [1]}), "holds 'examples/label' itself"),
    "no room": (_record(examples=3), "no room for 'examples'"),
    "version": (_record(schema_version=3), "schema version 3; this robrep reads"),
    "version true": (_record(schema_version=True), "schema version True"),
    "inline in 2": (_record(examples={"mood": [1]}), "examples.mood"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_does_not_fit_is_one_clear_error(tmp_path: Path, name: str) -> None:
    spoil, message = SPOILT[name]
    folder = tmp_path / "run"
    write_result(folder, read_result(LIPSCHITZ))
    spoil(folder)
    with pytest.raises(UserError, match=message) as raised:
        read_result(folder)
    assert len(str(raised.value).splitlines()) == 1


def test_an_entry_names_its_columns_too(evaluated: Evaluated, tmp_path: Path) -> None:
    """A forger changes record and columns, and forgets the entry's other line."""
    root = evaluated.copy(tmp_path / "zoo")
    place = root / "tiny-digits" / "entries" / ENTRY
    (old,) = place.glob(PATTERN)
    kept = old.read_bytes()
    content = read_whole(place)
    content["examples"]["clean_prediction"][0] += 1
    write_whole(place, content)
    old.write_bytes(kept)
    entry = read_json(place / "entry.json")
    entry["result"] = FileRecord.of(place, "result.json").model_dump(mode="json")
    write_json(place / "entry.json", entry)
    write_index(root / INDEX, scan(root))
    source = FolderSource(root)
    with pytest.raises(VerificationError, match="not those that the entry names"):
        read_entry(source, source.find("tiny-digits"), ENTRY)
