"""One collection, four places: what is read is the same, or clearly refused.

One file in spite of its length: the same collection stands in all four places.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import hub_stub
import pytest
import serving
import torch
from zoo_collection import ENTRY, Evaluated, add_encoder, tiny_encoder

import zoo
from zoo.collection.audit import audit, plan
from zoo.collection.index import INDEX, Index, scan
from zoo.collection.merge import Receipt
from zoo.collection.opening import open_source
from zoo.collection.publish import Publication, publish
from zoo.collection.sources import FolderSource
from zoo.collection.sources_hub import HubSource
from zoo.collection.sources_web import WebSource
from zoo.collection.store import card, load_encoder_by_name, names, weights
from zoo.errors import RobrepError, UserError
from zoo.records import Proportion, write_record


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBREP_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ROBREP_ZOO", raising=False)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub-cache")
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "zoo"
    add_encoder(folder, "first-digits")
    write_record(folder / INDEX, scan(folder))
    return folder


@pytest.fixture
def server(root: Path) -> Iterator[serving.Server]:
    with serving.serving(root) as running:
        yield running


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[hub_stub.Hub]:
    with hub_stub.hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def features() -> torch.Tensor:
    """What `first-digits` computes on a fixed image."""
    with torch.no_grad():
        found: torch.Tensor = tiny_encoder(0)(torch.full((1, 1, 8, 8), 0.5))
    return found


def loaded(name: str = "first-digits") -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = zoo.load(name)(torch.full((1, 1, 8, 8), 0.5))
    return found


def test_a_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBREP_ZOO", str(root))
    assert names() == ["first-digits"]
    assert torch.equal(loaded(), features())


def test_a_web_server_and_then_offline(
    server: serving.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBREP_ZOO", server.url)
    assert torch.equal(loaded(), features())
    asked = len(server.requests)
    assert torch.equal(loaded(), features())
    again = [path for path, _ in server.requests[asked:]]
    assert again == [INDEX]  # all else came from the cache
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    assert torch.equal(loaded(), features())
    assert [path for path, _ in server.requests[asked:]] == again


def test_offline_without_a_cache(
    server: serving.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    with pytest.raises(UserError, match="offline mode"):
        names(server.url)
    assert server.requests == []


def test_a_damaged_cache_is_mended(server: serving.Server) -> None:
    path = weights("first-digits", server.url)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert weights("first-digits", server.url) == path
    assert torch.equal(
        load_encoder_by_name("first-digits", server.url).mean,
        tiny_encoder(0).mean,
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>not found</html>", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "nested more than 64 deep"),
        (b"9" * 10_000, "not valid JSON"),
        (b'{"schema_version": 2, "encoders": []}', "schema version 2"),
        (b'{"schema_version": 1}', "encoders"),
        (b'["schema_version"]', "schema version None"),
    ],
)
def test_a_broken_index(server: serving.Server, content: bytes, message: str) -> None:
    server.faults[INDEX] = serving.instead(lambda _: content)
    with pytest.raises(UserError, match=message):
        names(server.url)
    assert not (WebSource(server.url).cache / INDEX).exists()


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "/etc/passwd",
        "a/../../evil",
        "a//b",
        "..",
        "C:evil",
        "a\\b",
        "a%2e/b",
    ],
)
def test_paths_that_lead_elsewhere_are_refused(root: Path, path: str) -> None:
    index = json.loads((root / INDEX).read_text())
    index["encoders"][0]["files"][0]["path"] = path
    (root / INDEX).write_text(json.dumps(index))
    with pytest.raises(UserError, match="plain relative path"):
        names(root)


@pytest.mark.parametrize("name", ["../evil", "UPPER", "", "a/b", ".hidden", "x" * 97])
def test_names_that_are_no_names_are_refused(root: Path, name: str) -> None:
    for key in ("folder", "name"):
        index = json.loads((root / INDEX).read_text())
        row = index["encoders"][0]
        (row if key == "folder" else row["card"])[key] = name
        with pytest.raises(ValueError, match=r"."):
            Index.model_validate(index)


def test_a_card_under_another_name_is_refused(tmp_path: Path) -> None:
    add_encoder(tmp_path / "zoo", "first-digits")
    (tmp_path / "zoo" / "first-digits").rename(tmp_path / "zoo" / "second-digits")
    with pytest.raises(UserError, match="is the card of 'first-digits'"):
        card("second-digits", tmp_path / "zoo")


def test_a_pickle_is_not_opened(root: Path, tmp_path: Path) -> None:
    import pickle

    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    path = root / "first-digits" / "model.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    text = (root / "first-digits" / "card.json").read_text()
    content = json.loads(text)
    from zoo.files import sha256_file

    content["sha256"] = sha256_file(path)
    (root / "first-digits" / "card.json").write_text(json.dumps(content))
    write_record(root / INDEX, scan(root))
    with pytest.raises(UserError, match="not a safetensors file"):
        load_encoder_by_name("first-digits", root)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://example.invalid/zoo", "https only"),
        ("hf://only-one-part", "hf://ORG/REPO"),
        ("hf://a/b/c", "hf://ORG/REPO"),
        ("s3://bucket", "known forms"),
    ],
)
def test_sources_that_are_none(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_source(uri)


def published_to_hub(evaluated: Evaluated, run: str = "run") -> Receipt:
    request = Publication(
        runs=[evaluated.run if run == "run" else evaluated.other_run],
        source=str(evaluated.plain),
    )
    return publish(request, "hf://org/tiny")


def test_publishing_to_a_hub_is_one_commit(
    evaluated: Evaluated, hub: hub_stub.Hub
) -> None:
    receipt = published_to_hub(evaluated)
    assert receipt.new_encoder
    assert receipt.added == (ENTRY,)
    empty, only = hub.commits["org/tiny"]
    assert empty == {}
    assert {
        "README.md",
        "card.json",
        "config.json",
        "model.safetensors",
        "index.json",
        f"entries/{ENTRY}/deltas.safetensors",
    } <= set(only)
    page = only["README.md"].decode()
    assert page.startswith("---\nlicense: apache-2.0\n")
    assert 'zoo.load("tiny-digits", source="hf://org/tiny")' in page
    assert "robrep-zoo verify tiny-digits --source hf://org/tiny\n" in page
    assert hub.parents[0]  # it says upon which state it was built


def test_what_the_hub_holds_can_be_verified(
    evaluated: Evaluated, hub: hub_stub.Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    published_to_hub(evaluated)
    source = open_source("hf://org/tiny")
    verdicts = [audit(source, item, data_dir=None) for item in plan(source, None)]
    assert [verdict.reason for verdict in verdicts] == [None, None]
    monkeypatch.setenv("ROBREP_OFFLINE", "1")
    assert HubSource("hf://org/tiny").index == source.index  # from the hub's cache


def test_a_hub_repository_is_a_model_reference(
    evaluated: Evaluated, hub: hub_stub.Hub
) -> None:
    from zoo.collection.references import LoadOptions, load

    published_to_hub(evaluated)
    options = LoadOptions(shape=(1, 8, 8), classes=10)
    for reference in ("hf://org/tiny", "hf-hub:org/tiny"):
        found = load(reference, options)
        assert found.training is not None
        assert found.training.method == "tarrl"
        assert found.encoder is not None
        assert found.encoder.dim == 8


def test_a_second_entry_joins_the_first(
    evaluated: Evaluated, hub: hub_stub.Hub
) -> None:
    published_to_hub(evaluated)
    receipt = published_to_hub(evaluated, "other")
    assert not receipt.new_encoder
    assert receipt.added == ("digits-l2-0.01-slf-v2-fgsm",)
    source = open_source("hf-hub:org/tiny")
    assert source.find("tiny-digits").entries == ["digits-l2-0.01-slf-v2-fgsm", ENTRY]
    assert all(audit(source, i, data_dir=None).holds for i in plan(source, None))
    page = hub.files("org/tiny")["README.md"].decode()
    assert ENTRY in page
    assert "digits-l2-0.01-slf-v2-fgsm" in page


def test_what_others_publish_meanwhile_is_not_overwritten(
    evaluated: Evaluated, hub: hub_stub.Hub
) -> None:
    hub.meanwhile = {"README.md": b"somebody else's"}
    with pytest.raises(RobrepError, match=r"412|commit has happened"):
        published_to_hub(evaluated)
    assert hub.files("org/tiny") == hub.meanwhile


def test_two_publish_to_one_folder_at_once(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(run: Path) -> Receipt:
        request = Publication(runs=[run], source=str(evaluated.plain))
        return publish(request, str(tmp_path / "shared"))

    with ThreadPoolExecutor(2) as pool:
        receipts = list(pool.map(one, [evaluated.run, evaluated.other_run]))
    assert sorted(receipt.new_encoder for receipt in receipts) == [False, True]
    source = FolderSource(tmp_path / "shared")
    assert len(source.find("tiny-digits").entries) == 2
    assert all(audit(source, i, data_dir=None).holds for i in plan(source, None))


def test_a_file_that_the_hub_altered_is_refused_and_not_kept(
    evaluated: Evaluated, hub: hub_stub.Hub
) -> None:
    published_to_hub(evaluated)
    good = hub.files("org/tiny")["model.safetensors"]
    hub.commits["org/tiny"][-1]["model.safetensors"] = good[:-1] + b"!"
    for _ in range(2):
        with pytest.raises(UserError, match="SHA-256"):
            weights("tiny-digits", "hf://org/tiny")
    hub.commits["org/tiny"][-1]["model.safetensors"] = good
    assert weights("tiny-digits", "hf://org/tiny").read_bytes() == good


def test_a_hub_without_the_repository(hub: hub_stub.Hub) -> None:
    with pytest.raises(UserError, match="not there, or not public"):
        names("hf://org/nothing")
    hub.commits["org/other"] = [{"README.md": b"hello"}]
    with pytest.raises(UserError, match=r"there is no index\.json"):
        names("hf://org/other")


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the client's attempts
    with pytest.raises(RobrepError):
        names("hf://org/tiny")


def test_publishing_again_adds_nothing(evaluated: Evaluated, tmp_path: Path) -> None:
    root = evaluated.copy(tmp_path / "zoo2")
    before = {path: path.read_bytes() for path in root.rglob("*.safetensors")}
    request = Publication(runs=[evaluated.run], source=str(evaluated.plain))
    receipt = publish(request, str(root))
    assert (receipt.added, receipt.known) == ((), (ENTRY,))
    assert {path: path.read_bytes() for path in before} == before
    assert all(
        audit(source, item, data_dir=None).holds
        for source in [FolderSource(root)]
        for item in plan(source, None)
    )


def test_a_published_entry_is_never_overwritten(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    root = evaluated.copy(tmp_path / "zoo2")
    request = Publication(
        runs=[evaluated.other_run], source=str(evaluated.plain), entry=ENTRY
    )
    with pytest.raises(UserError, match="never changes; choose another with --entry"):
        publish(request, str(root))


def test_a_published_encoder_is_never_overwritten(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    root = evaluated.copy(tmp_path / "zoo2")
    add_encoder(tmp_path / "mine", "tiny-digits", seed=5)
    with pytest.raises(UserError, match=r"tiny-digits\.v2"):
        publish(Publication(runs=[tmp_path / "mine" / "tiny-digits"]), str(root))


def test_evidence_that_does_not_hold_is_not_published(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    import shutil

    run = tmp_path / "run"
    shutil.copytree(evaluated.run, run)
    result = json.loads((run / "result.json").read_text())
    one_more = Proportion.of(result["robust"]["k"] + 1, result["robust"]["n"])
    result["robust"] = one_more.model_dump()
    (run / "result.json").write_text(json.dumps(result))
    request = Publication(runs=[run], source=str(evaluated.plain))
    with pytest.raises(RobrepError, match="robust accuracy: stated"):
        publish(request, str(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("runs", "to", "message"),
    [
        (["nothing"], "target", "neither result.json nor card.json"),
        (["plain/tiny-digits"], "https://host/zoo", "copy it to your server"),
        (["plain/tiny-digits", "run", "other"], "target", None),
    ],
)
def test_what_can_be_published(
    evaluated: Evaluated,
    tmp_path: Path,
    runs: list[str],
    to: str,
    message: str | None,
) -> None:
    (evaluated.plain.parent / "nothing").mkdir(exist_ok=True)
    request = Publication(runs=[evaluated.plain.parent / run for run in runs])
    target = to if "://" in to else str(tmp_path / to)
    if message is None:
        assert len(publish(request, target).added) == 2
    else:
        with pytest.raises(UserError, match=message):
            publish(request, target)
