"""How many images a chunk has: what memory holds, and enough chunks for all processes.

The reference's draws are per chunk, so its chunks are as large as asked for. The
verdicts of robrep's engine do not depend on them, nor does a run's identity: what a run
began with stands in its folder, and it goes on so, with however many processes.
"""

from __future__ import annotations

from math import ceil, prod
from pathlib import Path

from robrep_eval.attacks.battery import Battery
from robrep_eval.attacks.engine_attack import EngineAttack
from robrep_eval.attacks.rounds import RoundsAttack
from zoo.datasets.base import Dataset
from zoo.errors import UserError
from zoo.files import read_json, write_json

SIZE = "size.json"
CHUNK_BYTES = 1 << 27
"""Of float32 images of a chunk; an attack holds a dozen times as much."""
EACH = 4
"""Chunks for each process, so that none waits long for the last."""
FEWEST = 16
"""Images that are attacked together at least."""


def chunk_size(
    folder: Path, battery: Battery, data: Dataset, *, most: int, world: int
) -> int:
    """Images of a chunk.

    Args:
        folder: Of the chunks' files; says what a run began with.
        battery: The attacks.
        data: All images.
        most: What was asked for.
        world: Number of processes.

    Raises:
        UserError: the folder says something impossible.
    """
    if not all(
        isinstance(attack, EngineAttack | RoundsAttack)
        and attack.randomness != "official-rng"
        for attack in battery.attacks
    ):
        return most
    path = folder / SIZE
    if path.exists():
        found = read_json(path)
        if not isinstance(found, int) or not 0 < found <= most:
            raise UserError(f"{path} is damaged; use --overwrite to start anew")
        return found
    size = most
    if not any(folder.glob("*-clean.safetensors")):  # of a robrep without the file
        room = CHUNK_BYTES // (4 * prod(data.shape))
        share = ceil(len(data) / (EACH * world)) if world > 1 else most
        size = min(most, max(FEWEST, min(room, share)))
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, size)
    return size
