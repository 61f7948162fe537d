"""Words for units of lengths in feature space. Imports nothing."""

from __future__ import annotations

PLAIN, WHITENED = METRICS = ("plain", "whitened")
"""As the encoder gives features, the usual ones; or whitened (`zoo.whitening`)."""
