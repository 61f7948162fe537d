"""A bundle for RobustBench: all that its maintainers ask for, made from an entry.

model_info/DATASET/THREAT/NAME.json   their schema
models/DATASET/THREAT/NAME.pt         weights, where their loader looks
NAME.py                               definition, and `register()` for their zoo
ISSUE.md                              the form "New Model(s)", filled
autoattack.log, verdicts.csv          the evaluation
"""

from __future__ import annotations

import shutil
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.entries import Published, load_classifier, read_entry, verify_entry
from zoo.errors import UserError
from zoo.files import write_json, write_text
from zoo.leaderboard import doubts
from zoo.model_card import PAGES
from zoo.records import Card, Result
from zoo.requirements import Check, check_defence, check_health, check_protocol
from zoo.sources import Source
from zoo.submission_log import log_lines, verdict_table
from zoo.submission_model import definition, identifier, load_definition, weights

if TYPE_CHECKING:
    from zoo.classifier import Classifier
    from zoo.datasets.base import Dataset
    from zoo.verification import Claims

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


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was written, and what stands in the way of submitting it."""

    folder: Path
    name: str
    checks: tuple[Check, ...]

    @property
    def missing(self) -> list[Check]:
        """Requirements that are not met."""
        return [check for check in self.checks if not check.holds]


def submit(
    source: Source,
    reference: str,
    paper: Paper,
    *,
    output: Path | None = None,
    variant: str | None = None,
    data_dir: Path | None = None,
    draft: bool = False,
) -> Bundle:
    """Checks the requirements and writes the bundle.

    Args:
        source: The collection.
        reference: ENCODER/ENTRY.
        paper: Title, authors and so on.
        output: Folder to write; by default the RobustBench name, here.
        variant: Added to the name after "_", for several models of one paper.
        data_dir: Where the dataset lies.
        draft: Write the bundle though requirements are not met.

    Raises:
        UserError: requirements are not met (each is named), or no such entry.
        VerificationError: the entry does not hold.
    """
    from zoo import verification
    from zoo.deltas import unpack
    from zoo.files import read_tensors

    encoder, _, entry = reference.partition("/")
    row = source.find(encoder)
    published = read_entry(source, row, entry)
    verify_entry(source, published, data_dir=data_dir)
    classifier = load_classifier(source, published)
    data = verification.load_named_dataset(published.result, data_dir)
    place = f"entries/{entry}/{published.entry.deltas.path}"
    claims = unpack(read_tensors(source.fetch(row, place))[0], data)
    checks = [
        *check_protocol(published.result),
        *check_defence(classifier, data),
        check_health(doubts(published.result)),
        _check_paper(paper),
    ]
    unmet = [f"{c.what}: {c.found}" for c in checks if not c.holds]
    if unmet and not draft:
        raise UserError(
            f"{reference} cannot be submitted yet; missing: {'; '.join(unmet)}. "
            "(--draft writes the bundle all the same)"
        )
    name = row.card.robustbench_id or robustbench_name(paper, row.card, variant)
    folder = output or Path(name)
    if folder.exists():
        raise UserError(f"{folder} exists already; choose another --output")
    bundle = Bundle(folder=folder, name=name, checks=tuple(checks))
    with tempfile.TemporaryDirectory(dir=_parent(folder), prefix=".bundle-") as stage:
        _write(Path(stage), bundle, published, paper, classifier, data, claims)
        shutil.copytree(stage, folder)
    return bundle


def _parent(folder: Path) -> Path:
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder.parent


def _check_paper(paper: Paper) -> Check:
    missing = paper.missing()
    found = ", ".join(f"no --{name}" for name in missing) or paper.title
    return Check("paper (title, authors, link, venue)", not missing, found)


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
        "unreliable": bool(doubts(result)),
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


def _write(
    stage: Path,
    bundle: Bundle,
    published: Published,
    paper: Paper,
    classifier: Classifier,
    data: Dataset,
    claims: Claims,
) -> None:
    result, card = published.result, published.row.card
    board = Path(result.dataset.name) / result.threat.norm
    info = model_info(result, card, paper)
    write_json(stage / "model_info" / board / f"{bundle.name}.json", info)
    source = definition(
        classifier,
        name=bundle.name,
        reference=published.reference,
        dataset=result.dataset.name,
        threat=result.threat.norm,
    )
    weights_path = stage / "models" / board / f"{bundle.name}.pt"
    _write_model(stage, weights_path, source, bundle.name, classifier, data)
    x = data.images(slice(None))
    x_adv = x.clone()
    # One adversarial per image: AutoAttack keeps that of the first attack to succeed.
    for row, image in reversed(
        list(zip(claims.positions.tolist(), claims.images, strict=True))
    ):
        x_adv[row] = image
    lines = log_lines(result, x, x_adv)
    write_text(stage / "autoattack.log", "\n".join(lines) + "\n")
    write_text(stage / "verdicts.csv", verdict_table(result))
    issue = _issue(
        bundle, published, paper, info, weights_path.relative_to(stage), stage
    )
    write_text(stage / "ISSUE.md", f"{issue.rstrip()}\n")


def _write_model(
    stage: Path,
    path: Path,
    source: str,
    name: str,
    classifier: Classifier,
    data: Dataset,
) -> None:
    """Definition and weights, after they were found to give the same logits."""
    import torch

    state = weights(classifier)
    rebuilt = load_definition(source, name)
    rebuilt.load_state_dict(state)
    x = data.images(slice(64))
    with torch.no_grad():
        if not torch.equal(rebuilt(x), classifier(x)):
            raise AssertionError("the assembled model differs from the classifier")
    write_text(stage / f"{identifier(name)}.py", source)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def _issue(
    bundle: Bundle,
    published: Published,
    paper: Paper,
    info: dict[str, str | bool | int | None],
    weights_path: Path,
    stage: Path,
) -> str:
    import jinja2

    from zoo.files import sha256_file

    result, card = published.result, published.row.card
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(PAGES),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    robust = result.robust
    return environment.get_template("robustbench_issue.md.j2").render(
        name=bundle.name,
        paper=paper,
        info=info,
        threat=result.threat.norm,
        result=result,
        card=card,
        interval=f"[{100 * robust.low:.2f}, {100 * robust.high:.2f}]",
        engine=", ".join(_engines(result)),
        weights=weights_path.as_posix(),
        sha256=sha256_file(stage / weights_path),
        definition=f"{identifier(bundle.name)}.py",
        own_architecture=card.arch not in ARCHITECTURES,
        mit=card.licence.upper() == "MIT",
        checks=bundle.checks,
        versions=sorted(result.provenance.versions.items()),
    )


def _engines(result: Result) -> Sequence[str]:
    """Whose code attacked, each once."""
    return list(dict.fromkeys(run.engine for run in result.attacks))
