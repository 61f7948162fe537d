"""What RobustBench's records say of an entry: its name, its JSON, its paper."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from zoo.judgement import doubts
from zoo.records import Card, Result

ARCHITECTURES = {
    "resnet18": "ResNet-18",
    "preact_resnet18": "PreActResNet-18",
    "wide_resnet_28_10": "WideResNet-28-10",
}
"""As the leaderboard writes them; these their zoo has too."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """What the record of an entry does not say."""

    title: str = ""
    authors: str = ""
    """Comma separated, first author first."""
    link: str = ""
    venue: str = ""
    """"ICML 2020", or "arXiv, Apr 2022": the last word is the year."""
    footnote: str | None = None
    checkpoint: str | None = None
    """Where the bundle's weights can be downloaded."""

    def missing(self) -> list[str]:
        """Names of fields that have to be filled."""
        fields = ("title", "authors", "link", "venue")
        return [name for name in fields if not getattr(self, name).strip()]


def robustbench_name(paper: Paper, card: Card, variant: str | None) -> str:
    """<Surname of the first author><Year><First word of the title>[_<variant>].

    Where the paper does not say, what it lacks is left out.
    """
    author = paper.authors.split(",")[0].split()
    year = paper.venue.split()[-1:] if paper.venue else []
    words = paper.title.replace("-", " ").split()
    parts = [*author[-1:], *year, *words[:1]]
    name = "".join(_plain(part, first=True) for part in parts) or _plain(card.name)
    suffix = _plain(variant) if variant else ""
    return f"{name}_{suffix}" if suffix else name


def _plain(text: str, *, first: bool = False) -> str:
    """ASCII letters, digits, "_" and "-"; optionally with a capital in front."""
    folded = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    kept = "".join(c if c.isalnum() or c == "-" else "_" for c in folded).strip("_-")
    return kept[:1].upper() + kept[1:] if first else kept


def model_info(
    result: Result, card: Card, paper: Paper
) -> dict[str, str | bool | int | None]:
    """The JSON of an entry as the published ones have it: accuracies as texts."""
    robust = f"{100 * result.robust.value:.2f}"
    training = card.training
    found = doubts(result.measurements.health)
    # Where nobody looked, the record says nothing: their table shows "Unknown" then.
    looked = {} if found is None else {"unreliable": bool(found)}
    return {
        "link": paper.link,
        "name": paper.title,
        "authors": paper.authors,
        "additional_data": training.extra_data
        or training.dataset != result.dataset.name,
        "number_forward_passes": 1,
        "dataset": result.dataset.name,
        "venue": paper.venue or "N/A",
        "architecture": ARCHITECTURES.get(card.arch, card.arch),
        "eps": eps_text(result),
        "clean_acc": f"{100 * result.clean.value:.2f}",
        "reported": robust,
        "autoattack_acc": robust,
        "footnote": _footnote(result, card, paper),
        **looked,
    }


def eps_text(result: Result) -> str:
    """ "8/255" for Linf, "0.5" for L2."""
    text = str(result.threat).split()[1]
    return text if "/" in text else f"{result.threat.eps:g}"


def _footnote(result: Result, card: Card, paper: Paper) -> str | None:
    training = card.training
    notes = [paper.footnote] if paper.footnote else []
    if result.probe is not None:
        how = "with labels" if training.labels else "without labels"
        notes.append(
            f"Encoder pretrained {how} on {training.dataset}; "
            f"{result.probe.protocol} head."
        )
    return " ".join(notes) or None
