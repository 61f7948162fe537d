"""Claims of one encoder against another on one task: entries of SLF, version 1.

A claim compares what was published: examples that both encoders answered, paired. Units
are images, and what follows is said of these encoders alone, not of methods.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from benchmarks.claims.verdict import Verdict, What, sentence
from robrep_eval.compare import compare
from zoo.collection.entries import read_entry
from zoo.collection.opening import open_source
from zoo.records import Result
from zoo.task_version import version_of

ENTRIES = {
    "digits": "digits-linf-0.1",
    "fashion-mnist": "fashion-mnist-linf-0.1",
    "cifar10-jpeg": "cifar10-jpeg-linf8",
}


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence and what it stands on."""

    a: str
    """An encoder, as NAME or NAME:PROTOCOL (slf by default)."""
    b: str
    what: What = "robust"
    margin: float = 0.0
    """Points that A may be behind; 0: A is ahead."""

    @property
    def text(self) -> str:
        """ "A is ahead of B when clean"."""
        return sentence(_shown(self.a), _shown(self.b), self.what, self.margin)


def _shown(side: str) -> str:
    return side.replace(":", ", ")


def judge(claim: Claim) -> Verdict:
    """Tests a claim on the published records.

    Raises:
        ValueError: the two were measured by different protocols, versions, batteries
            or images, and no claim may compare those.
    """
    return judged(_result(claim.a), _result(claim.b), claim.what, claim.margin)


def judged(a: Result, b: Result, what: What, margin: float) -> Verdict:
    """The same of any two results; arguments as in `Claim`."""
    kinds = {_kind(a), _kind(b)}
    if len(kinds) > 1:
        raise ValueError(f"not to be compared: {' and '.join(sorted(kinds))}")
    comparison = compare(b, a)
    row = next(row for row in comparison.rows if row.name == what)
    return Verdict(
        difference=100 * row.difference,
        low=100 * row.low,
        high=100 * row.high,
        p_value=None if margin else row.p_value,
        units=f"{comparison.shared} images",
        holds=100 * row.low > -margin,
    )


def _kind(result: Result) -> str:
    """What two results of one claim must share."""
    probe = result.probe
    fitted = "no head" if probe is None else f"{probe.protocol} {probe.labels or 'all'}"
    version, data = version_of(result), result.dataset
    return (
        f"{data.name}/{data.split} {data.sha256[:8]}, {result.threat}, "
        f"{result.battery}, {fitted}, version {version.dataset}/{version.probe}"
    )


@cache
def _result(name: str) -> Result:
    encoder, _, protocol = name.partition(":")
    source = open_source("embedded")
    row = source.find(encoder)
    base = next(
        entry for dataset, entry in ENTRIES.items() if encoder.endswith(dataset)
    )
    return read_entry(source, row, f"{base}-{protocol or 'slf'}").result


def _claims(
    a: str, *others: str, what: What = "robust", margin: float = 0
) -> Iterator[Claim]:
    for other in others:
        yield Claim(a=a, b=other, what=what, margin=margin)


TARRL, SPECTRAL = "tarrl-b64-digits", "spectral-fashion-mnist"
SMALL, WIDE = "spectral-cifar10-jpeg", "spectral-wide-cifar10-jpeg"
LABELS_AHEAD = (
    *_claims("pgd-at-b64-digits", TARRL),
    *_claims("pgd-at-k2-priced-fashion-mnist", SPECTRAL),
    *_claims("pgd-at-priced-wide-cifar10-jpeg", WIDE),
)
OTHERS_BEHIND = (
    *_claims(TARRL, "rocl-digits", "rocl-priced-digits", "acl-digits"),
    *_claims(TARRL, "advcl-digits", "dynacl-digits", "dynacl-pp-digits"),
    *_claims(TARRL, "deacl-digits", "simclr-digits"),
    *_claims(SPECTRAL, "rocl-fashion-mnist", "rocl-stable-fashion-mnist"),
    *_claims(SPECTRAL, "acl-fashion-mnist", "dynacl-fashion-mnist"),
    *_claims(SPECTRAL, "deacl-fashion-mnist", "simclr-fashion-mnist"),
    *_claims(SMALL, "deacl-cifar10-jpeg", "simclr-cifar10-jpeg"),
    *_claims(WIDE, "dynacl-wide-cifar10-jpeg", "deacl-wide-cifar10-jpeg"),
    *_claims(WIDE, "simclr-wide-cifar10-jpeg"),
)
"""Every encoder by a method of others without labels, on its own task (SLF, 1)."""
NEAR = (
    *_claims(SPECTRAL, "pgd-at-k2-fashion-mnist", margin=2),
    *_claims(SPECTRAL, "pgd-at-k2-fashion-mnist", what="clean", margin=2),
    *_claims(TARRL, "pgd-at-b64-digits", margin=2),
    *_claims(SMALL, "pgd-at-cifar10-jpeg", margin=2),
)
"""The aim of two points below plain adversarial training with labels."""
STATEMENTS = {
    "Under attack the supervised entry is ahead of the one without labels in each of "
    "these three comparisons.": LABELS_AHEAD,
    "On the task of its pretraining, of ours the best without labels for each dataset "
    "and size of network is ahead of every encoder by a published method without "
    "labels.": OTHERS_BEHIND,
}
"""Comparative sentences of the README, and what each rests on."""
CLAIMS = (
    *LABELS_AHEAD,
    *OTHERS_BEHIND,
    *NEAR,
    *_claims("pgd-at-b64-digits", "spectral-b64-digits"),
    *_claims(TARRL, "pgd-at-b64-digits", what="clean", margin=2),
    *_claims(TARRL, "tarrl-digits", "prototypes-digits"),
    *_claims(SPECTRAL, "pgd-at-k2-fashion-mnist", margin=3),
    *_claims(SPECTRAL, "pgd-at-fashion-mnist", "trades-fashion-mnist"),
    *_claims(SPECTRAL, "prototypes-stable-fashion-mnist"),
    *_claims("pgd-at-k2-priced-fashion-mnist", "pgd-at-k2-fashion-mnist"),
    *_claims(f"{SPECTRAL}:alf-10pct", "pgd-at-k2-fashion-mnist:alf-10pct", margin=3),
    *_claims("pgd-at-cifar10-jpeg", SMALL),
    *_claims("pgd-at-cifar10-jpeg", SMALL, what="clean"),
    *_claims(SMALL, "pgd-at-cifar10-jpeg", margin=5),
    *_claims(SMALL, "prototypes-cifar10-jpeg", "tarrl-cifar10-jpeg"),
    *_claims("pgd-at-cifar10-jpeg:aff-10pct", f"{SMALL}:aff-10pct"),
    *_claims("pgd-at-wide-cifar10-jpeg", WIDE),
    *_claims("pgd-at-wide-cifar10-jpeg", WIDE, what="clean"),
    *_claims("pgd-at-priced-wide-cifar10-jpeg", "pgd-at-wide-cifar10-jpeg"),
)


def rows() -> list[list[str]]:
    """Of the table, in the order of `HEADINGS`."""
    return [judge(claim).cells(claim.text) for claim in CLAIMS]
