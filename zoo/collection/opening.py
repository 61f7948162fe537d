"""Where a collection lies: in the package, in a folder, on a web server or on a hub.

`--source` or `ROBREP_ZOO` names it:

embedded            the encoders that come with robrep (the default); in a checkout
                    those in its folder `collection` as well
PATH                a folder: of a zoo, or of a repository of results
https://HOST/PATH   a web server or bucket
hf://ORG/REPO[@REV] a repository on the Hugging Face hub
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from zoo.collection.sources import FolderSource, Source
from zoo.collection.sources_embedded import EMBEDDED, EmbeddedSource
from zoo.collection.sources_hub import HUB_ALIAS, HubSource
from zoo.collection.sources_results import ResultsSource, is_repository
from zoo.collection.sources_web import WebSource
from zoo.errors import UserError
from zoo.paths import user_path

VARIABLE = "ROBREP_ZOO"


def open_source(uri: str | Path | None = None) -> Source:
    """The collection that `uri` names, or `ROBREP_ZOO`, or the embedded one.

    Nothing is read yet.

    Raises:
        UserError: not a form that robrep knows.
    """
    text = str(uri or os.environ.get(VARIABLE) or EMBEDDED)
    if text == EMBEDDED:
        return EmbeddedSource()
    if text.startswith(("hf://", HUB_ALIAS)):
        return HubSource(text)
    if text.startswith(("https://", "http://")):
        return WebSource(text)
    if re.match(r"[a-z][a-z0-9+.-]+://", text):
        raise UserError(
            f"'{text}' is no source of a zoo; known forms: {EMBEDDED}, a folder, "
            "https://HOST/PATH, hf://ORG/REPO"
        )
    path = user_path(text)
    return ResultsSource(path) if is_repository(path) else FolderSource(path)
