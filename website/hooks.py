"""What MkDocs calls: adds the pages that are generated."""

from __future__ import annotations

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from website.generated import pages


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds each generated page, as if it lay in docs/."""
    for name, text in pages().items():
        files.append(File.generated(config, name, content=text))
    return files
