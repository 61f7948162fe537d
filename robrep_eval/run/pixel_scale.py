"""Whether pixels reach a network of the user's scaled as in its training."""

from __future__ import annotations

from zoo.collection.references import Loaded
from zoo.datasets.base import Dataset
from zoo.own_module import PREFIX, odd_scale, tells_scale

LOOK = 64
"""Images that are passed through the network."""


def scale_note(
    loaded: Loaded, data: Dataset, *, described: bool, said: bool
) -> str | None:
    """What is odd, or not known; None where nothing is.

    Args:
        loaded: A module at hand, a checkpoint, or a model that brings its own
            normalisation along.
        data: Images as it gets them.
        described: False for a checkpoint that does not say what it holds.
        said: Whether the user gave mean or deviation.
    """
    model = loaded.encoder or loaded.classifier
    module = loaded.reference.startswith(PREFIX)
    if model is None or (not module and (described or said)):
        return None
    x = data.images(slice(LOOK))
    if said or (module and tells_scale(model)):
        return odd_scale(model, x)
    odd = odd_scale(model, x, "this scale")
    option = "mean= and std=" if module else "--normalize"
    unsaid = (
        f"No normalisation was given for {loaded.reference} ({option}): it gets pixels "
        "in [0, 1] as they are, right only if it was trained on such or normalises "
        "them itself."
    )
    return unsaid if odd is None else f"{unsaid} {odd}"
