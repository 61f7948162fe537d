"""The collection that comes with robrep: in the package, and beside it in a checkout.

A wheel carries files of 4 MB at most. Larger encoders lie in the folder `collection`
of the repository, where a checkout finds them under the same names; elsewhere.json in
the package says which source has them for everybody else.
"""

from __future__ import annotations

from pathlib import Path

from zoo.collection.index import EncoderRow, FileRecord, Index
from zoo.collection.sources import FolderSource, Source
from zoo.errors import UserError
from zoo.files import read_json

EMBEDDED = "embedded"
EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded"
ELSEWHERE = "elsewhere.json"
"""Source by name of encoder."""


class EmbeddedSource(Source):
    """The package's encoders, and those in `collection/` of a checkout.

    Args:
        package: Folder of the embedded encoders; without it there are none.
    """

    def __init__(self, package: Path = EMBEDDED_FOLDER) -> None:
        super().__init__(EMBEDDED)
        self.package = package
        root = package.parents[1]
        checkout = root / "collection" if (root / "pyproject.toml").is_file() else None
        folders = [f for f in (package, checkout) if f is not None and f.is_dir()]
        self.parts = [FolderSource(folder, EMBEDDED) for folder in folders]

    def find(self, name: str) -> EncoderRow:
        """As `Source.find`; of an encoder that is not here it says which source has
        it."""
        elsewhere = self.package / ELSEWHERE
        known = read_json(elsewhere) if elsewhere.is_file() else {}
        here = name in self.index.names() or name in self.left_out
        if name in known and not here:
            place = known[name]
            clone = "" if "://" in place else " in a clone of robrep's repository"
            raise UserError(
                f"zoo:{name} is too large for the package; get it with --source "
                f"{place} (robrep-zoo) or ROBREP_ZOO={place} (every command){clone}"
            )
        return super().find(name)

    def _read_index(self) -> Index:
        rows: dict[str, EncoderRow] = {}
        for part in reversed(self.parts):  # of one name the package's counts
            found = {row.card.name: row for row in part.index.encoders}
            broken = part.left_out
            rows = {n: row for n, row in rows.items() if n not in broken} | found
            left = {n: why for n, why in self._left_out.items() if n not in found}
            self._left_out = left | broken
        return Index(encoders=[rows[name] for name in sorted(rows)])

    def _fetch(self, row: EncoderRow, file: FileRecord) -> Path:
        holder = next(part for part in self.parts if row in part.index.encoders)
        return holder.fetch(row, file.path)
