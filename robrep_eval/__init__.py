"""Second floor of robrep: measures encoders.

>>> from robrep_eval import evaluate
>>> result = evaluate("zoo:tarrl-digits", eps=0.1)  # doctest: +SKIP
>>> print(result.clean, result.robust)  # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo  # after it, `import robustbench` works too

if Path(zoo.__file__ or "").resolve().parents[1] != Path(__file__).resolve().parents[1]:
    raise ImportError(
        f"{zoo.__file__ or zoo.__path__} hides robrep's own package 'zoo': rename it, "
        "or run from another folder"
    )

if TYPE_CHECKING:
    from robrep_eval.adapters import to_art, to_robustbench
    from robrep_eval.compare import compare_files
    from robrep_eval.measures.bound import EstimatedBound
    from robrep_eval.measures.label_free import WithoutLabels
    from robrep_eval.run.evaluation import evaluate
    from robrep_eval.run.options import Options
    from robrep_eval.run.probing import fit_probe
    from robrep_eval.run.several import evaluate_all
    from robrep_eval.run.suite_evaluation import evaluate_suite
    from robrep_eval.run.suite_result import SuiteResult
    from robrep_eval.run.summary import Summary

__all__ = [
    "EstimatedBound",
    "Options",
    "SuiteResult",
    "Summary",
    "WithoutLabels",
    "compare_files",
    "evaluate",
    "evaluate_all",
    "evaluate_suite",
    "fit_probe",
    "to_art",
    "to_robustbench",
]

_WHERE = {
    "evaluate": "robrep_eval.run.evaluation",
    "EstimatedBound": "robrep_eval.measures.bound",
    "Options": "robrep_eval.run.options",
    "SuiteResult": "robrep_eval.run.suite_result",
    "Summary": "robrep_eval.run.summary",
    "WithoutLabels": "robrep_eval.measures.label_free",
    "evaluate_all": "robrep_eval.run.several",
    "evaluate_suite": "robrep_eval.run.suite_evaluation",
    "compare_files": "robrep_eval.compare",
    "fit_probe": "robrep_eval.run.probing",
    "to_art": "robrep_eval.adapters",
    "to_robustbench": "robrep_eval.adapters",
}


def __getattr__(name: str) -> Any:
    """Imports on first use, so that the command answers --help without torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'robrep_eval' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
