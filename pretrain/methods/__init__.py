"""The registry of methods; each is one small file that reads like its equations.

Other packages add methods by the entry point group `robrep.methods`, whose entries
name a subclass of `pretrain.methods.base.Method`. Listing imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pretrain.faults import explain
from zoo.datasets.names import FOLDER, IMAGES, recorded_name
from zoo.errors import UserError, nearest

if TYPE_CHECKING:
    from pretrain.methods.base import Method
    from pretrain.recipe import Recipe, Section

_BUILT_IN = {
    "simclr": "pretrain.methods.simclr:SimCLR",
    "tarrl": "pretrain.methods.tarrl:TARRL",
    "rocl": "pretrain.methods.rocl:RoCL",
    "acl": "pretrain.methods.acl:ACL",
    "advcl": "pretrain.methods.advcl:AdvCL",
    "deacl": "pretrain.methods.deacl:DeACL",
    "dynacl": "pretrain.methods.dynacl:DynACL",
    "dynacl++": "pretrain.methods.dynacl_pp:DynACLPlus",
    "prototypes": "pretrain.methods.prototypes:Prototypes",
    "spectral": "pretrain.methods.spectral:Spectral",
    "lipschitz-contrast": "pretrain.methods.lipschitz:Lipschitz",
    "fare": "pretrain.methods.fare:FARE",
    "lore": "pretrain.methods.lore:LORE",
    "cosine": "pretrain.methods.cosine:Cosine",
    "displacement": "pretrain.methods.displacement:Displacement",
    "pgd-at": "pretrain.methods.supervised:PGDAT",
    "trades": "pretrain.methods.supervised:TRADES",
}


@cache
def registry() -> dict[str, str]:
    """All known methods: name to "module:class", those of other packages included."""
    found = dict(_BUILT_IN)
    for entry in entry_points(group="robrep.methods"):
        if entry.name in found:
            raise UserError(
                f"method '{entry.name}' of entry point '{entry.value}' already exists; "
                "give it another name"
            )
        found[entry.name] = entry.value
    return found


def get(name: str) -> type[Method]:
    """The class of the method; raises `UserError` with the nearest names."""
    try:
        module, attribute = registry()[name].split(":")
    except KeyError:
        raise UserError(
            f"unknown method '{name}'; {nearest(name, registry())}"
        ) from None
    kind: type[Method] = getattr(import_module(module), attribute)
    return kind


def options(recipe: Recipe) -> Section:
    """The method's own settings, validated.

    Raises:
        UserError: unknown method or option, wrong type or range; a threat model that
            is missing or pointless; a teacher that is missing or pointless; labels that
            the images do not have.
    """
    kind = get(recipe.method)
    _check_labels(recipe)
    try:
        chosen = kind.Options.model_validate(recipe.options)
    except ValidationError as error:
        raise UserError(
            f"options of '{recipe.method}': {explain(error, kind.Options)}"
        ) from None
    if kind.adversarial and recipe.threat is None:
        raise UserError(
            f"method '{recipe.method}' needs a threat model: --norm Linf --eps 8/255"
        )
    if kind.needs_teacher(chosen) and recipe.teacher is None and recipe.init is None:
        raise UserError(
            f"method '{recipe.method}' starts from a trained encoder: --init REF, or "
            "set teacher to zoo:NAME, a file, or settings such as {method: simclr, "
            "epochs: 100}"
        )
    if not kind.needs_teacher(chosen) and recipe.teacher is not None:
        raise UserError(f"method '{recipe.method}' with these options uses no teacher")
    return chosen


def _check_labels(recipe: Recipe) -> None:
    """Of the method, and of that of a teacher that is trained first."""
    own = recipe.teacher if isinstance(recipe.teacher, Mapping) else {}
    named = [(recipe.method, recipe.data)]
    if "method" in own:
        named.append((own["method"], str(own.get("data", recipe.data))))
    for name, data in named:
        if data.startswith(IMAGES) and get(name).labels:
            raise UserError(
                f"method '{name}' trains on labels, which the images of "
                f"'{recorded_name(data)}' do not have: put them into class folders "
                f"({FOLDER}PATH), or take a method without labels (--method fare or "
                "lore with --init REF, or rocl)"
            )
