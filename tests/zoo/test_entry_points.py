"""Architectures and datasets of another package, installed as packages are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


PACKAGE = """
import torch
from torch import nn
from zoo.architectures import Architecture
from zoo.datasets.base import from_tensors
from zoo.datasets.registry import DatasetInfo

FLAT = Architecture(
    name="toy_flat", build="toys:flat", summary="pixels", options={"width": 3}
)
TAKEN = Architecture(name="resnet_s8", build="toys:flat", summary="taken")
STRIPES = DatasetInfo(
    name="toy-stripes", read="toys:read", shape=(1, 4, 4), classes=2, summary="stripes"
)
OLD = DatasetInfo(
    name="digits", read="toys:read", shape=(1, 4, 4), classes=2, summary="taken"
)

class Flat(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.dim = width
        self.layer = nn.Linear(16, width)

    def forward(self, x):
        return self.layer(x.flatten(1))

def flat(*, in_channels, width):
    return Flat(width)

def read(name, split, data_dir):
    y = torch.arange(6 if split == "train" else 4) % 2
    x = torch.zeros(len(y), 1, 4, 4)
    x[y == 1, :, ::2] = 1
    return from_tensors(x, y, name=name, classes=("plain", "striped"))
"""


def inside(folder: Path, points: str, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code where a package with these entry points is installed."""
    site = folder / "site"
    info = site / "toys-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    (site / "toys.py").write_text(PACKAGE)
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": path},
    )


def test_an_architecture_is_built_saved_and_loaded(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
import torch
from zoo.encoder import Encoder, EncoderSpec, load_encoder, save_encoder
spec = EncoderSpec(arch="toy_flat", options={{"width": 5}}, shape=(1, 4, 4))
encoder = Encoder(spec)
file = Path({str(tmp_path / "flat.safetensors")!r})
save_encoder(encoder, file)
x = torch.rand(2, 1, 4, 4)
expected = encoder.backbone.layer(x.flatten(1))
assert torch.equal(load_encoder(file)(x), expected)
print(tuple(expected.shape))
"""
    done = inside(tmp_path, "[robrep.encoders]\nflat = toys:FLAT\n", code)
    assert (done.stdout, done.returncode) == ("(2, 5)\n", 0), done.stderr


def test_a_dataset_is_loaded(tmp_path: Path) -> None:
    code = """
from zoo import datasets
data = datasets.load("toy-stripes", "test")
x = data.images(slice(None))
print(data.name, data.classes, data.labels.tolist(), x.sum(dim=(1, 2, 3)).tolist())
"""
    done = inside(tmp_path, "[robrep.datasets]\nstripes = toys:STRIPES\n", code)
    expected = "toy-stripes ('plain', 'striped') [0, 1, 0, 1] [0.0, 8.0, 0.0, 8.0]\n"
    assert (done.stdout, done.returncode) == (expected, 0), done.stderr


@pytest.mark.parametrize(
    ("points", "module", "said"),
    [
        (
            "[robrep.encoders]\nr = toys:TAKEN\n",
            "zoo.architectures",
            "architecture 'resnet_s8' of entry point 'toys:TAKEN' already exists",
        ),
        (
            "[robrep.datasets]\nd = toys:OLD\n",
            "zoo.datasets.registry",
            "dataset 'digits' of entry point 'toys:OLD' already exists",
        ),
    ],
)
def test_a_name_that_is_taken_is_refused(
    points: str, module: str, said: str, tmp_path: Path
) -> None:
    code = f"""
from {module} import registry
from zoo.errors import UserError
try:
    registry()
except UserError as error:
    print(error)
"""
    done = inside(tmp_path, points, code)
    assert said in done.stdout, done.stderr
