"""The page of an encoder on a hub: README.md with front matter, and .eval_results.

Both are generated from card and entries, never edited. Other people's text is escaped:
it can neither format the page nor break its tables.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo.collection.entries import Published
from zoo.records import Card
from zoo.tables import escape_markdown

if TYPE_CHECKING:
    import jinja2

README = "README.md"
EVAL_RESULTS = ".eval_results/robrep.yaml"
PAGES = Path(__file__).parents[1] / "pages"
HUB_DATASETS = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "mnist": "ylecun/mnist",
    "fashion-mnist": "zalando-datasets/fashion_mnist",
    "svhn": "ufldl-stanford/svhn",
}
"""Names that the hub gives to datasets; results on others have no place there."""
LICENCES = frozenset(
    (
        *("apache-2.0", "mit", "openrail", "bigscience-openrail-m", "afl-3.0"),
        *("creativeml-openrail-m", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause"),
        *("bsd-3-clause", "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0"),
        *("cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0"),
        *("cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0"),
        *("cc-by-nd-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0"),
        *("cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0", "ecl-2.0"),
        *("cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "epl-1.0"),
        *("epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gfdl"),
        *("gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc"),
        *("lppl-1.3c", "ms-pl", "mpl-2.0", "odc-by", "odbl", "openrail++"),
        *("osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl"),
        *("unknown", "other"),
    )
)
"""Identifiers that the hub takes."""


def template(name: str) -> jinja2.Template:
    """A template of Markdown; it escapes what others wrote by the filter `md`."""
    return _environment().get_template(name)


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["code"] = lambda text: str(text).replace("```", "'''")
    return environment


def readme(card: Card, entries: Sequence[Published], source: str | None = None) -> str:
    """README.md: front matter for the hub, then the card for people.

    Args:
        card: Of the encoder.
        entries: All of it that are published.
        source: Where people find it, if that is known.
    """
    head = yaml.safe_dump(front_matter(card, entries), sort_keys=False)
    body = template("model_card.md.j2").render(
        card=card, entries=entries, source=source
    )
    return f"---\n{head}---\n\n{body.strip()}\n"


def front_matter(card: Card, entries: Sequence[Published]) -> dict[str, Any]:
    """What the hub indexes; results in the older form that it still reads."""
    supervision = "supervised" if card.training.labels else "self-supervised"
    dataset = HUB_DATASETS.get(card.training.dataset)
    found: dict[str, Any] = {
        **_licence(card.licence),
        "library_name": "robrep",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["adversarial-robustness", supervision, card.training.method],
    }
    if dataset:
        found["datasets"] = [dataset]
    if entries:
        found["model-index"] = [
            {"name": card.name, "results": [_model_index(entry) for entry in entries]}
        ]
    return found


def _licence(name: str) -> dict[str, str]:
    """As the hub wants it: one of its own identifiers, or "other" and a name."""
    plain = name.strip().lower()
    if plain in LICENCES:
        return {"license": plain}
    words = re.findall(r"[a-z0-9.]+", plain)
    return {"license": "other", "license_name": "-".join(words) or "unknown"}


def _model_index(entry: Published) -> dict[str, Any]:
    result = entry.result
    name = result.dataset.name
    return {
        "task": {"type": "image-classification"},
        "dataset": {
            "name": name,
            "type": HUB_DATASETS.get(name, name),
            "split": result.dataset.split,
        },
        "metrics": [
            {"type": "accuracy", "name": "clean accuracy", "value": result.clean.value},
            {
                "type": "accuracy",
                "name": f"robust accuracy ({result.threat}, {entry.battery}, "
                f"{entry.protocol})",
                "value": result.robust.value,
            },
        ],
    }


def eval_results(entries: Sequence[Published], source: str | None = None) -> str | None:
    """.eval_results/robrep.yaml in the hub's form, or None if it has no place there.

    Args:
        entries: All that are published of an encoder.
        source: Where people find them, if that is known.
    """
    rows = [row for entry in entries for row in _eval_rows(entry, source)]
    return yaml.safe_dump(rows, sort_keys=False) if rows else None


def _eval_rows(entry: Published, source: str | None) -> list[dict[str, Any]]:
    from huggingface_hub import EvalResultEntry
    from huggingface_hub import eval_result_entries_to_yaml as as_rows

    result = entry.result
    dataset = HUB_DATASETS.get(result.dataset.name)
    if dataset is None:
        return []
    where = f" --source {source}" if source else ""
    tasks = {"clean_accuracy": result.clean, "robust_accuracy": result.robust}
    return as_rows(
        [
            EvalResultEntry(
                dataset_id=dataset,
                task_id=task,
                value=figure.value,
                date=result.provenance.created.isoformat(),
                notes=f"{result.threat}, {entry.battery}, "
                f"{entry.protocol}, n={figure.n}, "
                f"95% [{figure.low:.4f}, {figure.high:.4f}]; "
                f"check it: robrep-zoo verify {entry.reference}{where}",
            )
            for task, figure in tasks.items()
        ]
    )
