"""What MkDocs calls: adds the pages that are generated, and links to the glossary."""

from __future__ import annotations

import re
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.generated import AT_THE_ROOT, pages
from website.glossary import linked


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds each generated page, as if it lay in docs/."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Words of the glossary are linked where a reader of a page meets them first."""
    place = page.file.src_uri
    generated = place in pages() and place not in AT_THE_ROOT
    return markdown if generated else linked(markdown, place)


def on_page_content(html: str, **_: Any) -> str:
    """An empty cell at the head of a table is no heading."""
    return re.sub(r"<th([^>]*)></th>", r"<td\1></td>", html)
