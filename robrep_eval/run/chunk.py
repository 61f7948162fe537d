"""One chunk of examples: clean predictions, then each attack in turn, as files.

Each (chunk, attack) is one file, written atomically; while an attack of robrep's own
engine runs, its journal is written every few seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from robrep_eval.attacks.base import Attack, Context
from robrep_eval.attacks.battery import Battery
from robrep_eval.attacks.pool import Journal, State
from zoo import compact
from zoo.budgets import plain_reason
from zoo.classifier import Classifier, predict
from zoo.datasets.base import Dataset
from zoo.errors import RobrepError, UserError
from zoo.evidence import check_adversarials
from zoo.files import read_tensors, write_tensors
from zoo.layout import Layout
from zoo.records import Examples, Outcome, Verdict
from zoo.threat import ThreatModel
from zoo.verdicts import verdicts

OUTCOMES = list(Outcome)
"""Order in which outcomes are numbered in chunk files."""
MOVED = ".moved"
"""After the name of a tensor of images: which rows of it are no clean image."""


@dataclass(frozen=True, kw_only=True)
class BatterySettings:
    """How a battery is run; all but batch size and device identify the run."""

    seed: int = 0
    chunk_size: int = 512
    """The reference's verdicts depend on it: its random draws are per batch. Where no
    verdict does, chunks may be smaller; see `robrep_eval.run.chunk_size`."""
    batch_size: int = 512
    device: str = "cpu"

    @property
    def layout(self) -> Layout:
        """Device and batch size, for what takes them together."""
        return Layout(device=self.device, batch_size=self.batch_size)


@dataclass(kw_only=True)
class ChunkAttack:
    """What one attack came to on one chunk."""

    outcomes: list[Outcome]
    rows: Tensor
    """Rows of the chunk with a counted adversarial, int64 (k,)."""
    images: compact.Packed
    """Those adversarials."""
    seconds: float
    notes: list[str] = field(default_factory=list)


class Chunk:
    """One chunk: clean predictions, then each attack in turn."""

    def __init__(
        self,
        classifier: Classifier,
        data: Dataset,
        threat: ThreatModel,
        settings: BatterySettings,
        folder: Path,
        start: int,
    ) -> None:
        self.classifier = classifier
        self.data = data
        self.threat = threat
        self.settings = settings
        self.folder = folder
        self.start = start
        self.y = data.labels

    @cached_property
    def x(self) -> Tensor:
        """The clean images."""
        whole = Layout(batch_size=len(self.data))
        return torch.cat(list(self.data.batches(whole)))

    def run(
        self,
        battery: Battery,
        report: Callable[[str, float, int], None] = lambda *_: None,
        sample: Sequence[int] = (),
    ) -> ChunkResult:
        """All attacks in turn, those of an earlier run from their files.

        Args:
            battery: The attacks.
            report: Told the attack, its share done, and how many images stand.
            sample: Rows of the whole run that the battery's last attacks are on.
        """
        drawn = torch.zeros(len(self.y), dtype=torch.bool)
        drawn[[row - self.start for row in sample if self._holds(row)]] = True
        clean = self._clean()
        correct = clean == self.y
        survivors, standing = correct.clone(), correct.clone()
        found: dict[str, ChunkAttack] = {}
        for at, attack in enumerate(battery.attacks):
            todo = survivors if attack.sequence else correct
            if at >= len(battery.attacks) - battery.audited:
                todo = todo & drawn
            alive = int(standing.sum())
            found[attack.name] = self._attack(
                attack,
                todo.nonzero().flatten(),
                lambda share, a=attack.name, n=alive: report(a, share, n),  # type: ignore[misc]
            )
            standing[found[attack.name].rows] = False
            if attack.sequence:
                survivors[found[attack.name].rows] = False
        examples = Examples(
            index=self.data.positions.tolist(),
            label=self.y.tolist(),
            clean_prediction=clean.tolist(),
            verdict=[Verdict.UNDECIDED] * len(self.y),
            outcomes={name: part.outcomes for name, part in found.items()},
        )
        judged = examples.model_copy(update={"verdict": verdicts(examples)})
        files = {name: self._path(name) for name in found}
        return ChunkResult(self.start, judged, found, files)

    def _holds(self, row: int) -> bool:
        """Whether this row of the whole run is in this chunk."""
        return self.start <= row < self.start + len(self.y)

    def _path(self, name: str) -> Path:
        safe = name.replace(":", "-")  # no colons in file names on Windows
        return self.folder / f"{self.start:08d}-{safe}.safetensors"

    def _clean(self) -> Tensor:
        """Clean predictions, from the file of an earlier run if there is one."""
        path = self._path("clean")
        if path.exists():
            with _undamaged(path):
                saved = read_tensors(path)[0]["clean"]
                _expect(saved, torch.int64, len(self.y))
                classes = len(self.data.classes)
                if not -1 <= int(saved.min()) <= int(saved.max()) < classes:
                    raise ValueError("it predicts classes that there are not")
                return saved
        clean = clean_predictions(self.classifier, self.x, self.settings)
        write_tensors(path, {"clean": clean}, {})
        return clean

    def _attack(
        self, attack: Attack, rows: Tensor, progress: Callable[[float], None]
    ) -> ChunkAttack:
        """From the file of an earlier run, or by running it now."""
        path = self._path(attack.name)
        if path.exists():
            part = read_chunk(path, len(self.y), self.data.shape)
            with _undamaged(path):
                _expect_tried(part, rows)
                self._unpack(part)
            return replace(part, images=compact.NONE)
        progress(0.0)
        if len(rows):
            result = self._propose(attack, rows, progress)
        else:
            skipped = [Outcome.SKIPPED] * len(self.y)
            result = ChunkAttack(
                outcomes=skipped, rows=rows, images=compact.NONE, seconds=0.0
            )
        write_chunk(path, result)
        _journal_path(path).unlink(missing_ok=True)
        return replace(result, images=compact.NONE)

    def _unpack(self, part: ChunkAttack) -> None:
        """Raises if an adversarial of an earlier run is damaged: the attack can still
        be run again, which it cannot once the result is written."""
        own, shape = self.data.subset(part.rows.tolist()), self.data.shape
        for _ in compact.Images(part.images, own.images, shape, self.threat):
            pass

    def _propose(
        self, attack: Attack, rows: Tensor, progress: Callable[[float], None]
    ) -> ChunkAttack:
        """Lets the attack propose, and decides."""
        x, y = self.x[rows], self.y[rows]
        journal = _Journal(_journal_path(self._path(attack.name)), rows, x)
        notes: list[str] = []
        unclear: list[Tensor] = []
        context = Context(
            seed=self.settings.seed,
            ids=torch.from_numpy(self.data.positions)[rows],
            batch_size=self.settings.batch_size,
            device=self.settings.device,
            progress=progress,
            note=notes.append,
            undecided=unclear.append,
            journal=Journal(journal.load, journal.save),
        )
        proposals = attack.propose(self.classifier, x, y, self.threat, context)
        check = check_adversarials(
            self.classifier,
            x,
            proposals,
            y,
            self.threat,
            batch_sizes=recheck_sizes(len(rows)),
            device=self.settings.device,
        )
        for row in (int(r) for part in unclear for r in part):
            if check.outcome[row] is Outcome.HELD:
                check.outcome[row] = Outcome.UNDECIDED
        outcomes = [Outcome.SKIPPED] * len(self.y)
        for row, outcome in zip(rows.tolist(), check.outcome, strict=True):
            outcomes[row] = outcome
        return ChunkAttack(
            outcomes=outcomes,
            rows=rows[check.fooled],
            images=compact.pack(proposals[check.fooled], x[check.fooled], self.threat),
            seconds=journal.seconds(),
            notes=notes,
        )


def _journal_path(path: Path) -> Path:
    return path.with_suffix(".journal")


class _Journal:
    """What an attack on a chunk is in, as a file.

    Of tensors like the images themselves, such as proposals, only those rows are
    written that are no clean image.
    """

    def __init__(self, path: Path, rows: Tensor, x: Tensor) -> None:
        self.path = path
        self.rows = rows
        self.x = x
        self.before = 0.0
        self.began = time.perf_counter()

    def seconds(self) -> float:
        """Time spent on it, an earlier process's included."""
        return self.before + time.perf_counter() - self.began

    def load(self) -> State:
        """What was saved, if it is about the same rows."""
        if not self.path.exists():
            return {}
        try:
            tensors, metadata = read_tensors(self.path)
        except UserError:
            return {}
        rows, seconds = tensors.pop("rows", None), metadata.get("seconds")
        if rows is None or not torch.equal(rows, self.rows):
            return {}
        self.before = seconds if isinstance(seconds, float) else 0.0
        for name in [name for name in tensors if name.endswith(MOVED)]:
            whole = self.x.clone()
            at = tensors.pop(name)
            name = name.removesuffix(MOVED)
            whole[at] = tensors[name]
            tensors[name] = whole
        return tensors

    def save(self, state: State) -> None:
        """Replaces what was saved."""
        kept = {"rows": self.rows}
        for name, value in state.items():
            if value.shape == self.x.shape and value.dtype == self.x.dtype:
                moved = (value.cpu() != self.x).flatten(1).any(dim=1)
                kept[name + MOVED] = moved.nonzero().flatten()
                value = value[moved.to(value.device)]
            kept[name] = value
        write_tensors(self.path, kept, {"seconds": self.seconds()})


@dataclass(frozen=True)
class ChunkResult:
    start: int
    examples: Examples
    attacks: dict[str, ChunkAttack]
    """Without their images."""
    files: dict[str, Path]


def clean_predictions(
    classifier: Classifier, x: Tensor, settings: BatterySettings
) -> Tensor:
    """Predicted classes (n,); -1: logits not finite, or batch sizes disagree."""
    passes = [
        predict(classifier, x, replace(settings.layout, batch_size=size))
        for size in recheck_sizes(len(x))
    ]
    sure = passes[0].isfinite().all(dim=1) & passes[1].isfinite().all(dim=1)
    classes = [logits.argmax(dim=1) for logits in passes]
    sure &= classes[0] == classes[1]
    return torch.where(sure, classes[0], -1)


def recheck_sizes(n: int) -> tuple[int, int]:
    """Two batch sizes, neither of which an attack on n rows as one batch used."""
    return (100 if n != 100 else 99), (37 if n != 37 else 36)


def write_chunk(path: Path, part: ChunkAttack) -> None:
    codes = [OUTCOMES.index(outcome) for outcome in part.outcomes]
    write_tensors(
        path,
        {
            "outcomes": torch.tensor(codes, dtype=torch.uint8),
            "rows": part.rows,
            "stream": part.images.stream,
            "ends": part.images.ends,
        },
        {"seconds": part.seconds, "notes": part.notes},
    )


def read_chunk(
    path: Path, count: int | None = None, shape: tuple[int, int, int] | None = None
) -> ChunkAttack:
    """What an attack came to on a chunk of `count` images of `shape`.

    Runs that an earlier robrep began hold adversarials as they are.

    Raises:
        UserError: damaged, or of another chunk.
    """
    with _undamaged(path):
        tensors, metadata = read_tensors(path)
        codes, rows = tensors["outcomes"], tensors["rows"]
        _expect(codes, torch.uint8, len(codes) if count is None else count)
        outcomes = [OUTCOMES[code] for code in codes.tolist()]
        fooled = [i for i, o in enumerate(outcomes) if o is Outcome.FOOLED]
        _expect(rows, torch.int64, len(fooled))
        if rows.tolist() != fooled:
            raise ValueError("its rows are not those that were fooled")
        images = _adversarials(tensors, len(fooled), shape)
        return ChunkAttack(
            outcomes=outcomes,
            rows=rows,
            images=images,
            seconds=float(metadata["seconds"]),
            notes=[str(note) for note in metadata["notes"]],
        )


def _adversarials(
    tensors: dict[str, Tensor], count: int, shape: tuple[int, int, int] | None
) -> compact.Packed:
    """As many as an attack counted; raises what `_undamaged` makes one error of."""
    if "images" not in tensors:
        found = compact.Packed(tensors["stream"], tensors["ends"])
        if len(found) != count:
            raise ValueError(f"it holds {len(found)} adversarials, not {count}")
        return found
    images = tensors["images"]
    if not count:
        return compact.NONE
    _expect(images, torch.float32, count, *(shape or images.shape[1:]))
    return compact.plain(images)


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """One error for all that can be wrong with a file of progress."""
    try:
        yield
    except (RobrepError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(
            f"{path} is damaged or of another run ({plain_reason(error)}); remove it, "
            "and this part is done again"
        ) from None


def _expect_tried(part: ChunkAttack, rows: Tensor) -> None:
    tried = [i for i, o in enumerate(part.outcomes) if o is not Outcome.SKIPPED]
    if tried != rows.tolist():
        raise ValueError("its images are not those that were to be attacked")


def _expect(tensor: Tensor, dtype: torch.dtype, *shape: int) -> None:
    if tensor.dtype is not dtype or tuple(tensor.shape) != shape:
        raise ValueError(f"a tensor {tuple(tensor.shape)} of {tensor.dtype}")
