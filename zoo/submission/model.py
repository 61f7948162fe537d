"""A classifier as one Python file that needs torch alone, and weights for it.

The file is assembled from the modules that define the architecture here, so there is
one definition, not two; imports of robrep are replaced by what they bring.
"""

from __future__ import annotations

import ast
import inspect
import pprint
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from zoo import architectures
from zoo.classifier import Classifier
from zoo.encoder import Encoder, EncoderSpec
from zoo.errors import UserError

NETS = "zoo.nets."
LINEAR_END_MODULE = f"{NETS}linear_end"
ERRORS = '''

class UserError(ValueError):
    """Bad input."""


def nearest(name: str, known: object) -> str:
    """A hint; kept short here."""
    return "check its spelling"
'''
HEADER = '''"""{name}: a RobustBench model, complete in this file.

Made by robrep from its entry {reference}. Images are (N, {channels}, {height}, {width})
in [0, 1]; normalisation is inside. `register()` puts the model into RobustBench's zoo,
after which `robustbench.utils.load_model("{name}", model_dir="models",
dataset="{dataset}", threat_model="{threat}")` loads the weights of this bundle;
check.py does that and compares the accuracy.
"""

from __future__ import annotations
'''
MODEL = '''

OPTIONS = {options}


class {identifier}(nn.Module):
    """Encoder and linear head: images in [0, 1] to logits (N, {classes})."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = {build}
        self.head = nn.Linear({features}, {classes})
        self.register_buffer("mean", torch.tensor({mean}).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor({std}).view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone((x - self.mean) / self.std))


ZOO_ENTRY = {{"model": {identifier}, "gdrive_id": "{drive}"}}
"""The value for the key "{name}" in robustbench/model_zoo/{dataset}.py."""


def register() -> None:
    """Adds the model to the zoo of the RobustBench that is installed."""
    from robustbench.model_zoo import model_dicts
    from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel

    table = model_dicts[BenchmarkDataset("{dataset}")][ThreatModel("{threat}")]
    table["{name}"] = ZOO_ENTRY
'''


def definition(
    classifier: Classifier, *, name: str, reference: str, dataset: str, threat: str
) -> str:
    """Source of the model file.

    Args:
        classifier: An encoder of a known architecture with a linear head.
        name: RobustBench name: letters, digits, "_" and "-".
        reference: The entry, for the docstring.
        dataset: RobustBench's name of the dataset.
        threat: "Linf" or "L2".

    Raises:
        UserError: the classifier cannot be written as one file.
    """
    encoder, features = _parts(classifier)
    spec = encoder.spec
    channels, height, width = spec.shape
    values = {
        "name": name,
        "identifier": identifier(name),
        "reference": reference,
        "dataset": dataset,
        "threat": threat,
        "channels": channels,
        "height": height,
        "width": width,
        "classes": classifier.classes,
        "features": features,
        "options": pprint.pformat(_own_options(spec)),
        "build": _build_call(spec),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "drive": "<id of the uploaded weights>",
    }
    modules = [_module_of(spec.arch)]
    if architectures.LINEAR_END in spec.options:
        modules.append(LINEAR_END_MODULE)
    parts, seen = {"torch": "import torch"}, set[str]()
    body = "".join(_inlined(import_module(name), parts, seen) for name in modules)
    imports = "\n".join(parts.values())
    return (
        f"{HEADER.format(**values)}\n{imports}\n{ERRORS}{body}{MODEL.format(**values)}"
    )


def identifier(name: str) -> str:
    """The name as Python can spell it."""
    return name.replace("-", "_")


def weights(classifier: Classifier) -> dict[str, Tensor]:
    """State dict for the model of `definition`."""
    encoder, _ = _parts(classifier)
    state = {
        key.removeprefix("encoder."): value.clone()
        for key, value in classifier.state_dict().items()
    }
    state["mean"] = encoder.mean.clone()
    state["std"] = encoder.std.clone()
    broken = [key for key in state if "module." in key or "model." in key]
    if broken:
        # RobustBench's loader cuts these words out of every key that has them.
        raise UserError(
            f"RobustBench's loader would rename the weight '{broken[0]}'; the "
            "architecture cannot be submitted as it is"
        )
    return state


def load_definition(source: str, name: str) -> torch.nn.Module:
    """The model that `source` defines, with fresh weights, to compare with ours."""
    space: dict[str, object] = {"__name__": "bundle"}
    exec(compile(source, f"{name}.py", "exec"), space)  # our own text, just assembled
    model = space[identifier(name)]
    assert isinstance(model, type)
    built: torch.nn.Module = model()
    return built.eval()


def _parts(classifier: Classifier) -> tuple[Encoder, int]:
    encoder, head = classifier.encoder, classifier.linear
    if not isinstance(encoder, Encoder) or head is None:
        raise UserError(
            "only an encoder of a known architecture with a linear head can be written "
            "as one file"
        )
    return encoder, head.in_features


def _module_of(arch: str) -> str:
    if arch.startswith(architectures.FOREIGN):
        raise UserError(
            f"'{arch}' is built by {arch.split(':')[0]}; register it there and submit "
            "it by its name"
        )
    module = architectures.get(arch).build.split(":")[0]
    if not module.startswith(NETS):
        raise UserError(f"architecture '{arch}' comes from another package ({module})")
    return module


def _own_options(spec: EncoderSpec) -> dict[str, Any]:
    """Options of the architecture itself."""
    end = architectures.LINEAR_END
    return {key: value for key, value in spec.options.items() if key != end}


def _build_call(spec: EncoderSpec) -> str:
    function = architectures.get(spec.arch).build.split(":")[1]
    call = f"{function}(in_channels={spec.shape[0]}, **OPTIONS)"
    features = spec.options.get(architectures.LINEAR_END)
    return call if features is None else f"LinearEnd({call}, {features})"


def _inlined(module: ModuleType, imports: dict[str, str], seen: set[str]) -> str:
    """Source of a module after that of the modules of ours that it imports.

    Args:
        module: Under `zoo.nets`.
        imports: Collects all other imports; filled here.
        seen: Names of modules that are in already; filled here.
    """
    seen.add(module.__name__)
    source = inspect.getsource(module)
    lines = source.splitlines()
    before = []
    for node in ast.parse(source).body:
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        text = ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(NETS):
            if node.module not in seen:
                before.append(_inlined(import_module(str(node.module)), imports, seen))
        elif "zoo.errors" not in text and "__future__" not in text:
            imports[text] = text
        _blank(lines, node)
    first = ast.parse(source).body[0]
    _blank(lines, first)  # the docstring of the module
    return "".join(before) + "\n\n\n" + "\n".join(lines).strip() + "\n"


def _blank(lines: list[str], node: ast.stmt) -> None:
    for at in range(node.lineno - 1, node.end_lineno or node.lineno):
        lines[at] = ""
