"""What MkDocs calls: adds the pages that are generated."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from website.generated import pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds each generated page, as if it lay in docs/."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """An empty cell at the head of a table is no heading."""
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)
