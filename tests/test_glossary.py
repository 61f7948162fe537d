"""Words of the glossary are linked at their first use, and nothing else is touched."""

from __future__ import annotations

import re

import pytest
from documents import DOCS, anchors, texts

from website.glossary import PAGE, linked, words

HOW = "how-to/x.md"


def test_words_lead_to_headings_of_the_glossary() -> None:
    assert {"SLF", "Encoder", "B1", "B2", "Threat model"} <= words().keys()
    assert set(words().values()) <= anchors(f"docs/{PAGE}")


def test_only_the_first_use_is_linked() -> None:
    found = linked("Two encoders. Another encoder.", HOW)
    assert found == (
        "Two [encoders](../reference/glossary.md#encoder). Another encoder."
    )
    assert linked("An encoder.", "index.md") == (
        "An [encoder](reference/glossary.md#encoder)."
    )


@pytest.mark.parametrize(
    "text",
    [
        "`encoder`",
        "# Encoder",
        "| encoder | 1 |",
        "[the encoder](x.md)",
        "![an encoder](x.png)",
        "```sh\nencoder\n```",
        '<a title="encoder">',
        "my-encoder, encoder-like, encoder_x, autoencoder",
        "::: zoo.encoder.Encoder\n    options: {heading: encoder}",
    ],
)
def test_code_headings_tables_and_links_stay(text: str) -> None:
    assert linked(text, HOW) == text


def test_what_the_page_links_itself_stays() -> None:
    text = "Encoders, [so called](../reference/glossary.md#encoder)."
    assert linked(text, HOW) == text
    assert linked("SLF, encoder", PAGE) == "SLF, encoder"


def test_short_forms_are_taken_as_they_are_written() -> None:
    assert linked("slf", HOW) == "slf"
    assert linked("B2 and B1", HOW).count("glossary.md#b1-b2") == 1


def test_pages_change_in_nothing_but_links() -> None:
    changed = 0
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).as_posix()
        text = texts()[f"docs/{page}"]
        found = linked(text, page)
        place = re.escape("../" * page.count("/") + PAGE)
        assert re.sub(rf"\[([^\]]+)\]\({place}#[\w-]+\)", r"\1", found) == (
            re.sub(rf"\[([^\]]+)\]\({place}#[\w-]+\)", r"\1", text)
        )
        changed += found != text
    assert changed > 15
