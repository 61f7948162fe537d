"""What the page shows of one run, and why the rest is not there."""

from __future__ import annotations

from dataclasses import dataclass, field

from robrep_eval.attacks.registry import registry
from robrep_eval.measures.registry import ROWS
from robrep_eval.report.answers import Answer, limit, told, verdict
from robrep_eval.report.bars import (
    attack_bars,
    attack_labels,
    bound_bars,
    bracket,
    limit_bars,
)
from robrep_eval.report.classes import ClassRow, class_rows
from robrep_eval.report.curves import eps_figure, radii_figure
from robrep_eval.report.displacement import displacement_figure, displacements
from robrep_eval.report.feature_map import cloud, map_figure
from robrep_eval.report.figures import Figure
from robrep_eval.report.gallery import Gallery, gallery
from robrep_eval.report.material import Material
from robrep_eval.report.seen import Seen, see
from zoo.errors import UserError
from zoo.judgement import Judgement, doubts, judge
from zoo.records import AttackRun
from zoo.two_phases import line


@dataclass(kw_only=True)
class Contents:
    """All that the template reads; figures are None where `absent` says why."""

    material: Material
    battery: str
    """Its name with what stands behind it."""
    attacks: list[tuple[str, AttackRun]]
    attack_bars: Figure
    bracket: Figure | None
    """None where nothing is proved from below."""
    eps: Figure
    classes: list[ClassRow]
    gallery: Gallery | None
    verdict: Answer
    limit: Answer | None
    displacement: Figure | None = None
    map: Figure | None = None
    bound: Figure | None = None
    limits: Figure | None = None
    smoothing: Figure | None = None
    absent: dict[str, str] = field(default_factory=dict)
    """By section, one sentence."""

    @property
    def told(self) -> dict[str, str]:
        """By section, what stands beside its heading while it is folded."""
        return told(self.material, self.attacks, self.gallery)

    @property
    def missing(self) -> list[str]:
        """Sentences about what the run does not hold, or the page cannot show."""
        measured, absent = self.material.measured, self.absent
        shown = {
            "gallery": self.gallery,
            "displacement": self.displacement,
            "map": self.map or self.displacement,
        }
        lacking = [key for key in absent if shown.get(key, self) is None]
        lacking += [row for row in ROWS if getattr(measured, row, self) is None]
        return list(dict.fromkeys(absent[key] for key in lacking if absent.get(key)))

    @property
    def doubts(self) -> list[str]:
        """Findings of the health checks that did not pass."""
        return doubts(self.material.measured.health) or []

    @property
    def audit(self) -> str | None:
        """What a sample says of the images that stand, in one sentence."""
        return line(self.material.result)

    @property
    def judgement(self) -> Judgement:
        """What the health checks make of the evaluation."""
        return judge(self.material.measured.health)


def contents(material: Material, *, device: str = "cpu") -> Contents:
    """Draws all figures; forward passes only."""
    result, measured = material.result, material.measured
    seen = see(material, device=device)
    found = Contents(
        material=material,
        battery=_battery(result.battery),
        attacks=list(zip(attack_labels(result), result.attacks, strict=True)),
        attack_bars=attack_bars(result),
        bracket=bracket(result, measured),
        verdict=verdict(measured.health),
        limit=limit(measured.bound),
        eps=eps_figure(result, measured, seen),
        classes=class_rows(material, seen),
        gallery=gallery(material, seen),
        absent=_absent(material),
    )
    if measured.bound is not None:
        found.bound, found.limits = (
            bound_bars(measured.bound),
            limit_bars(measured.bound),
        )
    if measured.smoothing is not None:
        found.smoothing = radii_figure(
            "smoothing",
            "Randomised smoothing: certified accuracy",
            measured.smoothing.curve,
            "radius, L2",
        )
    _features(found, seen, device)
    return found


def _features(found: Contents, seen: Seen | None, device: str) -> None:
    """The two figures that need features of the encoder."""
    material = found.material
    try:
        moved = displacements(material, seen, device=device)
        points = cloud(material, seen, device=device)
    except UserError as error:  # features that are no numbers
        found.absent |= {"displacement": f"Not drawn: {error}.", "map": ""}
        return
    if moved is not None:
        found.displacement = displacement_figure(moved)
    if points is not None:
        found.map = map_figure(material, points)


def _battery(name: str) -> str:
    """The battery with the summaries of its parts."""
    known = registry()
    told = "; ".join(known[part].summary for part in name.split(",") if part in known)
    return f"{name} ({told})" if told else name


def _absent(material: Material) -> dict[str, str]:
    """One sentence for each section that this run may lack."""
    lacking = _lacking(material)
    pictures = f"Not shown: {lacking}." if lacking else "No attack fooled an image."
    features = f"Not shown: {lacking}." if lacking else "Features do not vary."
    return {
        "evidence": f"Nothing from this run's adversarials: {lacking}."
        if lacking
        else "",
        "gallery": pictures,
        "displacement": "The run holds no estimate of the bound, and no adversarial "
        "could be looked at instead."
        if lacking or not material.result.evidence.count
        else features,
        "map": features,
        **{row.name: row.absent for row in ROWS.values() if row.absent},
    }


def _lacking(material: Material) -> str:
    """Which of the files are not at hand, in words; empty if all are."""
    parts = {
        "the images": material.data,
        "the classifier": material.classifier,
        "the adversarials": material.claims,
    }
    missing = [name for name, part in parts.items() if part is None]
    return f"without {' and '.join(missing)}" if missing else ""
