"""A collection on a web server or in a bucket: any place that serves files by path."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import quote, urlsplit

from zoo.collection.download import Patience, check_url, download, get_small
from zoo.collection.index import INDEX, EncoderRow, FileRecord, Index
from zoo.collection.serial import goes_back
from zoo.collection.sources import Source, check_file
from zoo.errors import UserError
from zoo.files import parse_json, write_text
from zoo.paths import home, offline
from zoo.plain_text import without_secrets
from zoo.progress import byte_bar
from zoo.records import read_record, validated

INDEX_LIMIT = 64 << 20
"""Bytes. An index holds cards and checksums only."""


class WebSource(Source):
    """A collection under a URL; files are kept in the user's cache.

    Args:
        uri: https://HOST/PATH; http on this machine only.
        patience: How long to wait for the server.
    """

    def __init__(self, uri: str, patience: Patience | None = None) -> None:
        check_url(uri)
        if "?" in uri or "#" in uri:
            raise UserError(
                f"'{without_secrets(uri)}' is no address of a zoo: files lie below it, "
                "so it can have no query"
            )
        super().__init__(uri.rstrip("/"))
        self.patience = patience or Patience()

    @property
    def cache(self) -> Path:
        """Folder of everything that came from here."""
        digest = hashlib.sha256(self.uri.encode()).hexdigest()[:12]
        return home() / "zoo" / f"{urlsplit(self.uri).hostname}-{digest}"

    def _read_index(self) -> Index:
        cached = self.cache / INDEX
        if offline():
            if not cached.is_file():
                raise UserError(
                    f"offline mode is on and nothing from {self.uri} is in the cache"
                )
            return read_record(cached, Index)
        url = f"{self.uri}/{INDEX}"
        content = get_small(url, INDEX_LIMIT, self.patience)
        index = validated(parse_json(content, url), Index, url)
        if not goes_back(self.uri, index):
            write_text(cached, content.decode("utf-8-sig"))
        return index

    def _fetch(self, row: EncoderRow, file: FileRecord) -> Path:
        target = self.cache / row.located(file.path)
        if target.is_file():
            try:
                check_file(target, file, again="")
            except UserError:
                pass  # damaged since, or superseded: get it again below
            else:
                return target
        if offline():
            raise UserError(
                f"offline mode is on and {row.located(file.path)} of {self.uri} is "
                "not in the cache"
            )
        url = f"{self.uri}/{quote(row.located(file.path))}"
        with byte_bar(f"{row.card.name}/{file.path}", file.size) as report:
            return download(url, target, file, patience=self.patience, report=report)
