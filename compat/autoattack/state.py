"""The module that robustbench imports its evaluation state from."""

from pyautoattack.state import EvaluationState

__all__ = ["EvaluationState"]
