"""What is known of the licence of somebody's weights, and whether it lets them go on.

Not legal advice: it reads identifiers.
"""

from __future__ import annotations

import re

import yaml

from zoo import yaml_text
from zoo.errors import RobrepError

NO_DERIVATIVES = re.compile(
    r"(^|[-_ ])nd([-_ ]|$)|no[-_ ]?deriv|no[-_ ]?redistribut|all rights reserved"
    r"|proprietary",
    re.IGNORECASE,
)
"""Of identifiers such as cc-by-nc-nd-4.0, and of plain words."""
FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(\n|\Z)", re.DOTALL)


def forbids_sharing(licence: str) -> bool:
    """True if weights changed by fine-tuning may not be passed on."""
    return NO_DERIVATIVES.search(licence) is not None


def licence_of(reference: str) -> str | None:
    """Licence of the weights that a reference leads to, if it is stated there.

    Of an encoder of the zoo by its card, of a local file by the card beside it, of
    timm's by timm's own record, of a hub repository by its README.
    """
    if reference.startswith("zoo:"):
        from zoo.collection.store import card

        return card(reference.removeprefix("zoo:")).licence
    if reference.startswith("timm:"):
        return _of_timm(reference.removeprefix("timm:"))
    if reference.startswith(("hf://", "hf-hub:")):
        return _of_repository(reference)
    if reference.startswith("robustbench:"):
        return None
    return _beside(reference)


def _beside(reference: str) -> str | None:
    from zoo.collection.index import CARD
    from zoo.collection.references import weights_file
    from zoo.files import sha256_file
    from zoo.records import Card, read_record

    path = weights_file(reference)
    beside = path.parent / CARD
    if not beside.is_file():
        return None
    found = read_record(beside, Card)
    return found.licence if found.sha256 == sha256_file(path) else None


def _of_timm(name: str) -> str | None:
    import timm

    config = timm.models.get_pretrained_cfg(name)
    found = getattr(config, "license", None)
    return str(found) if found else None


def _of_repository(reference: str) -> str | None:
    from zoo.collection.sources_hub import Repository

    try:
        text = Repository.parse(reference).get("README.md").read_text(encoding="utf-8")
    except (RobrepError, UnicodeDecodeError):
        return None
    head = FRONT_MATTER.match(text)
    if head is None:
        return None
    try:
        found = yaml_text.parse(head[1], "README.md")
    except (RobrepError, yaml.YAMLError):
        return None
    licence = found.get("license") if isinstance(found, dict) else None
    if licence == "other":
        licence = found.get("license_name", licence)
    return licence if isinstance(licence, str) and licence else None
