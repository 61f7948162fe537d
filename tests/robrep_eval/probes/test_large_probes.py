"""The linear probe on features that are read block by block, by several processes."""

from __future__ import annotations

import hashlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.distributed import FileStore  # type: ignore[attr-defined]

from robrep_eval.probes import feature_files, logistic, rows
from robrep_eval.probes.feature_files import FeatureFiles, extract
from robrep_eval.probes.few_labels import few_labels
from robrep_eval.probes.linear import ProbeSettings, fit_probe
from robrep_eval.probes.logistic import Logistic
from robrep_eval.probes.rows import Rows
from robrep_eval.probes.team import Team
from robrep_eval.run.shards import Shards
from zoo.classifier import Classifier
from zoo.datasets.base import Dataset
from zoo.encoder import Encoder, fingerprint
from zoo.errors import UserError
from zoo.files import read_tensors, write_tensors

TIGHT = 1e-9


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits so small that a few hundred rows are many blocks and eight groups."""
    monkeypatch.setattr(rows, "BLOCK_BYTES", 1)
    monkeypatch.setattr(logistic, "CACHED_BYTES", 0)
    monkeypatch.setattr(feature_files, "PART", 100)


def _problem() -> tuple[Tensor, Tensor]:
    draws = torch.Generator().manual_seed(3)
    mixing = torch.randn(12, 12, generator=draws)
    z = torch.randn(700, 12, generator=draws) @ mixing + 5
    z[:, 3] = 2.0  # a constant feature
    logits = (z - z.mean(dim=0)) @ torch.randn(12, 6, generator=draws)
    y = (logits + 8 * torch.randn(700, 6, generator=draws)).argmax(dim=1)
    return z, y


def _head(data: Rows, team: Team | None = None, l2: float = 1e-2) -> nn.Linear:
    problem = Logistic(data, 6, *(() if team is None else (team,)))
    return problem.head(problem.solve(l2, TIGHT, 5000))


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_streamed_weights_are_those_of_scikit_learn_and_of_memory(
    small_blocks: None, monkeypatch: pytest.MonkeyPatch, l2: float
) -> None:
    z, y = _problem()
    streamed = _head(Rows(z.split(90), y), l2=l2)
    assert Rows(z.split(90), y).groups(6) == rows.GROUPS
    monkeypatch.undo()
    whole = _head(Rows.of(z, y), l2=l2)
    torch.testing.assert_close(streamed.weight, whole.weight, rtol=0, atol=1e-5)
    torch.testing.assert_close(streamed.bias, whole.bias, rtol=0, atol=1e-5)
    deviation = z.double().std(dim=0, correction=0)
    deviation[deviation == 0] = 1
    other = LogisticRegression(C=1 / (l2 * len(z)), tol=1e-12, max_iter=10_000)
    other.fit(((z - z.mean(dim=0)) / deviation).numpy(), y.numpy())
    want = torch.from_numpy(other.coef_) / deviation
    torch.testing.assert_close(streamed.weight.double(), want, rtol=0, atol=1e-5)


def test_some_rows_of_parts_are_those_rows(small_blocks: None) -> None:
    z, y = _problem()
    some = torch.arange(0, 700, 3)
    part = Rows(z.split(90), y).subset(some)
    assert torch.equal(torch.cat([b for b, _ in part.blocks(6)]), z[some].double())
    assert torch.equal(torch.cat([b for _, b in part.blocks(6)]), y[some])
    assert torch.equal(
        part.subset(torch.tensor([0, 5])).first(torch.tensor([1])), z[[15]]
    )
    grouped = [b for g in range(part.groups(6)) for b, _ in part.blocks(6, g)]
    assert torch.equal(torch.cat(grouped), z[some].double())


def _member(rank: int, store: str, path: str) -> None:
    shards = Shards(rank, 2, FileStore(store, 2))
    with shards.team("a test") as team:
        z, y = _problem()
        head = _head(Rows(z.split(90), y), team)
    torch.save([head.weight, head.bias], f"{path}{rank}")


def test_two_processes_come_to_the_weights_of_one(
    small_blocks: None, tmp_path: Path
) -> None:
    z, y = _problem()
    alone = _head(Rows(z.split(90), y))
    context = multiprocessing.get_context("fork")
    places = (str(tmp_path / "store"), str(tmp_path / "head"))
    team = [context.Process(target=_member, args=(r, *places)) for r in range(2)]
    for process in team:
        process.start()
    for process in team:
        process.join(60)
        assert process.exitcode == 0
    for rank in range(2):
        weight, bias = torch.load(f"{places[1]}{rank}", weights_only=True)
        assert torch.equal(weight, alone.weight)
        assert torch.equal(bias, alone.bias)


class Counting(nn.Module):
    """An encoder that counts the images it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.weight * x.flatten(1)[:, :20]


def test_features_are_made_once_and_again_only_where_they_must(
    small_blocks: None, digits_test: Dataset, tmp_path: Path
) -> None:
    data, encoder = digits_test.subset(slice(250)), Counting()
    files = FeatureFiles(folder=tmp_path)
    assert not files.complete(encoder, data)
    first = torch.cat(extract(encoder, data, files))
    assert torch.equal(first, data.images(slice(None)).flatten(1)[:, :20])
    assert encoder.seen == 250
    assert files.complete(encoder, data)
    assert torch.equal(torch.cat(extract(encoder, data, files)), first)
    assert encoder.seen == 250, "what is there is not made again"
    paths = sorted(tmp_path.rglob("*.safetensors"))
    assert len(paths) == 3
    paths[0].unlink()
    tensors, said = read_tensors(paths[1])
    changed = tensors["features"].clone()
    changed[0, 0] += 1
    write_tensors(paths[1], {"features": changed}, said)
    paths[2].write_bytes(paths[2].read_bytes()[:1000])
    assert torch.equal(torch.cat(extract(encoder, data, files)), first)
    assert encoder.seen == 500, "missing, changed, cut off: all three parts"
    with torch.no_grad():
        encoder.weight.add_(1)
    assert torch.equal(torch.cat(extract(encoder, data, files)), 2 * first)
    other = data.subset(slice(1, 250))
    assert not files.complete(encoder, other)
    half = FeatureFiles(folder=tmp_path, format="float16")
    found = extract(encoder, data, half)
    assert found[0].dtype is torch.float16
    assert torch.equal(torch.cat(found), (2 * first).half())


@pytest.mark.parametrize(
    "forged", [lambda z: z[:50], lambda z: z[0], lambda z: z.long(), lambda z: z / 0]
)
def test_files_that_cannot_be_features_are_made_again(
    small_blocks: None,
    digits_test: Dataset,
    tmp_path: Path,
    forged: Callable[[Tensor], Tensor],
) -> None:
    data, encoder = digits_test.subset(slice(100)), Counting()
    files = FeatureFiles(folder=tmp_path)
    (first,) = extract(encoder, data, files)
    (path,) = tmp_path.rglob("*.safetensors")
    wrong = forged(first.clone()).contiguous()
    said = read_tensors(path)[1]
    digest = hashlib.sha256(wrong.view(torch.uint8).numpy().data).hexdigest()
    write_tensors(path, {"features": wrong}, {**said, "sha256": digest})
    assert torch.equal(extract(encoder, data, files)[0], first)
    assert encoder.seen == 200


def test_features_beyond_float16_are_refused(
    digits_test: Dataset, tmp_path: Path
) -> None:
    encoder = Counting()
    with torch.no_grad():
        encoder.weight.add_(1e6)
    half = FeatureFiles(folder=tmp_path, format="float16")
    with pytest.raises(UserError, match="probed with features kept as float16"):
        extract(encoder, digits_test.subset(slice(20)), half)


def test_a_share_of_labels_uses_the_features_of_all(
    small_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
    digits_train: Dataset,
    plain_classifier: Classifier,
    tmp_path: Path,
) -> None:
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    train = digits_train.subset(slice(400))
    part = few_labels(train, "100")
    files = FeatureFiles(folder=tmp_path)
    extract(encoder, train, files)
    before = sorted(tmp_path.rglob("*.safetensors"))
    settings = ProbeSettings(penalties=(1e-2,), tolerance=TIGHT)
    kept: Any = fit_probe(encoder, part, settings=settings, files=files, of=train)
    assert sorted(tmp_path.rglob("*.safetensors")) == before
    plain: Any = fit_probe(encoder, part, settings=settings)
    torch.testing.assert_close(
        kept[0].head.weight, plain[0].head.weight, rtol=0, atol=1e-5
    )
    assert kept[1].validation_accuracy == plain[1].validation_accuracy


def test_the_head_depends_on_its_penalty_and_not_on_what_was_tried_before(
    digits_train: Dataset, plain_classifier: Classifier
) -> None:
    encoder = plain_classifier.encoder
    assert isinstance(encoder, Encoder)
    part = digits_train.subset(slice(300))
    chosen, record = fit_probe(encoder, part)
    asked = ProbeSettings(penalties=(record.parameters["l2"],))
    alone, _ = fit_probe(encoder, part, settings=asked)
    assert fingerprint(chosen) == fingerprint(alone)
