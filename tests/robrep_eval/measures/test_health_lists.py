"""The ground's list of health checks is that of the checks themselves."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from robrep_eval import evaluate
from zoo import health_checks
from zoo.classifier import Classifier
from zoo.measurements import HealthReport


@pytest.fixture(scope="module")
def report(robust_classifier: Classifier) -> HealthReport:
    found = evaluate(
        robust_classifier,
        dataset="digits",
        eps=0.1,
        attacks="fgsm",
        limit=16,
        health="full",
    )
    health = found.measurements.health
    assert health is not None
    return health


def test_every_check_is_listed_with_its_limit(report: HealthReport) -> None:
    assert health_checks.fault(report) is None
    for flag in report.flags:
        if flag.check in health_checks.LIMITS and flag.value is not None:
            own = health_checks.LIMITS[flag.check]
            if flag.check in health_checks.PLANTED:
                own = 3 / 16  # the last count whose exact interval reaches 5%
            assert flag.limit == own, flag.check


@pytest.mark.parametrize(
    ("forged", "reason"),
    [
        ({"flags": []}, "the health checks lack batch_independent"),
        ({"level": "default"}, "no health check of level default is called breaks_con"),
    ],
)
def test_a_list_that_is_not_whole(
    report: HealthReport, forged: dict[str, object], reason: str
) -> None:
    assert (health_checks.fault(report.model_copy(update=forged)) or "").startswith(
        reason
    )


def test_a_flag_left_out_doubled_or_with_another_limit(report: HealthReport) -> None:
    flags = list(report.flags)
    for at, flag in enumerate(flags):
        less = report.model_copy(update={"flags": flags[:at] + flags[at + 1 :]})
        assert health_checks.fault(less) == f"the health checks lack {flag.check}"
    more = report.model_copy(update={"flags": [*flags, flags[0]]})
    assert health_checks.fault(more) == "a health check is listed twice"
    first = next(f for f in flags if f.check == "deterministic")
    wider = [f.model_copy(update={"limit": 1e9}) if f is first else f for f in flags]
    forged = report.model_copy(update={"flags": wider})
    assert "the limit of deterministic is 0.0001" in (health_checks.fault(forged) or "")


@pytest.mark.parametrize(
    ("limit", "holds"), [(0.05, True), (3 / 16, True), (0.5, False), (1.0, False)]
)
def test_the_limit_of_planted_ones_is_that_of_the_reports_images(
    report: HealthReport, limit: float, holds: bool
) -> None:
    """5% is what older records state."""
    assert report.n == 16
    flags = [
        f.model_copy(update={"limit": limit}) if f.check == "finds_planted" else f
        for f in report.flags
    ]
    reason = health_checks.fault(report.model_copy(update={"flags": flags}))
    assert (reason is None) == holds


@pytest.mark.parametrize("total", [1, 16, 23, 64, 256])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_the_limit_is_the_last_count_whose_exact_interval_reaches_the_rate(
    total: int, rate: float
) -> None:
    count = round(health_checks.limit_of(total, rate) * total)
    lows = [
        binomtest(k, total).proportion_ci(0.95, method="exact").low
        for k in range(total + 1)
    ]
    assert count == max(k for k, low in enumerate(lows) if low <= rate)
    assert health_checks.limit_of(total, rate) == count / total
