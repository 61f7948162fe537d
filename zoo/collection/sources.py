"""What a collection is, wherever it lies; and one that lies in a folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from pathlib import Path

from zoo.collection.index import INDEX, EncoderRow, FileRecord, Index, scan
from zoo.collection.pieces import whole
from zoo.collection.serial import goes_back
from zoo.errors import UserError
from zoo.files import sha256_file
from zoo.plain_text import plain_line
from zoo.records import read_record


class Source(ABC):
    """A collection, wherever it lies.

    Args:
        uri: How people name it.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._left_out: dict[str, str] = {}
        """Filled by `_read_index`."""

    @cached_property
    def index(self) -> Index:
        """What the collection holds.

        Raises:
            UserError: no collection there, or a broken index.
            RobrepError: it cannot be reached.
        """
        return self._read_index()

    @property
    def left_out(self) -> dict[str, str]:
        """Encoders that are there, cannot be read and are not in the index; and why.

        Names and reasons are plain text (`zoo.plain_text`).
        """
        _ = self.index
        return self._left_out

    def whole_index(self) -> Index:
        """The index, for whoever writes it anew: nothing may be lost by that.

        Raises:
            UserError: an encoder that is there cannot be read.
        """
        for reason in self.left_out.values():
            raise UserError(f"{reason}; mend it or move it away first")
        return self.index

    def find(self, name: str) -> EncoderRow:
        """The row of encoder `name`.

        Raises:
            UserError: it cannot be read, or there is none: says the nearest names.
        """
        if reason := self.left_out.get(plain_line(name)):
            raise UserError(reason)
        return self.index.find(name, f"the zoo ({self.uri})")

    def fetch(self, row: EncoderRow, path: str) -> Path:
        """A local copy of one file of an encoder, after its checksum was compared.

        Raises:
            UserError: not listed, missing, or not what the index says.
            RobrepError: it cannot be reached.
        """
        return self._fetch(row, row.file(path))

    @abstractmethod
    def _read_index(self) -> Index: ...

    @abstractmethod
    def _fetch(self, row: EncoderRow, file: FileRecord) -> Path: ...


class FolderSource(Source):
    """A collection in a folder, with an index or without."""

    def __init__(self, root: Path, uri: str | None = None) -> None:
        super().__init__(uri or str(root))
        self.root = root

    def _read_index(self) -> Index:
        if not self.root.is_dir():
            raise UserError(f"no zoo at {self.root}: no such folder")
        if (self.root / INDEX).is_file():
            index = read_record(self.root / INDEX, Index)
            if self.uri == str(self.root):  # what comes with robrep changes with it
                goes_back(str(self.root.resolve()), index)
            return index
        return scan(self.root, self._left_out)

    def _fetch(self, row: EncoderRow, file: FileRecord) -> Path:
        path = whole(self.root / row.located(file.path), file.sha256)
        check_file(path, file, again="get it again")
        return path


def check_file(path: Path, file: FileRecord, *, again: str) -> None:
    """Raises `UserError` unless `path` is the file that the index describes.

    Args:
        path: The local file.
        file: Its row.
        again: What to do about it, ends the message.
    """
    if not path.is_file():
        raise UserError(f"no file {path}, which the index lists; {again}")
    size = path.stat().st_size
    if size != file.size:
        raise UserError(
            f"{path} has {size} bytes, but the index states {file.size}; {again}"
        )
    if sha256_file(path) != file.sha256:
        raise UserError(
            f"{path} does not have the SHA-256 that the index states; "
            f"it is damaged or was altered: {again}"
        )
