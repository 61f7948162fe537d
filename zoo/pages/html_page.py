"""What every page of robrep shares: one self-contained file, theme, strict policy.

All text is escaped by the template, nothing of it reaches a script, and the page's own
policy allows only the style and the script that it carries: no network.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo._version import __version__
from zoo.errors import UserError
from zoo.files import write_text

if TYPE_CHECKING:
    import jinja2

PAGES = Path(__file__).parent
"""Shell and theme; a page's own files may lie elsewhere."""
GENERATOR = b'<meta name="generator" content="robrep '
"""In the head of every page; see shell.html.j2."""
HEAD = 2048
"""Bytes in which it lies."""


def render(
    template: str,
    *,
    styles: list[str],
    scripts: tuple[str, ...] = (),
    folder: Path = PAGES,
    images: bool = False,
    **content: Any,
) -> str:
    """The whole page as text.

    Args:
        template: Extends "shell.html.j2".
        styles: Style sheets after the theme, in order.
        scripts: Run as one, in order.
        folder: Where template, styles and scripts lie.
        images: Whether the page embeds images as data URIs.
        content: For the template.
    """
    sheets = [PAGES / "theme.css", *(folder / name for name in styles)]
    style = "".join(sheet.read_text(encoding="utf-8") for sheet in sheets)
    code = "".join((folder / name).read_text(encoding="utf-8") for name in scripts)
    return (
        _environment(folder)
        .get_template(template)
        .render(
            style=style,
            script=code,
            policy=_policy(style, code, images),
            version=__version__,
            **content,
        )
    )


def write_page(path: Path, page: str) -> None:
    """Writes a page that `render` made, atomically, over none but such a page.

    Raises:
        UserError: a file is there that is no page of robrep's.
    """
    if (path.exists() or path.is_symlink()) and not is_page(path):
        raise UserError(
            f"{path} is there already and is no page of robrep's; name another file"
        )
    write_text(path, page)


def is_page(path: Path) -> bool:
    """Whether a file is a page that `render` made."""
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return GENERATOR in stream.read(HEAD)


@cache
def _environment(folder: Path) -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(list(dict.fromkeys([folder, PAGES]))),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    return environment


def _policy(style: str, script: str, images: bool) -> str:
    """Content-Security-Policy: this style, this script, nothing else."""
    allowed = [
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        f"style-src '{_digest(style)}'",
    ]
    allowed += [f"script-src '{_digest(script)}'"] * bool(script)
    allowed += ["img-src data:"] * images
    return "; ".join(allowed)


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(raw).decode()}"
