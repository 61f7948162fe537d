"""Small copies of published image sets, in the layouts in which they are handed round.

Each image is of one level of grey, which tells its class: `level`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat


def level(label: int) -> int:
    return 40 + 60 * label


def save(path: Path, label: int, size: tuple[int, int] = (30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level(label),) * 3).save(path)


def lines(path: Path, rows: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows))


def caltech(root: Path) -> None:
    base = root / "caltech101" / "101_ObjectCategories"
    save(base / "BACKGROUND_Google" / "image_0001.jpg", 3)
    for label, (name, count) in enumerate((("accordion", 32), ("zebra", 31))):
        for i in range(count):
            save(base / name / f"image_{i + 1:04d}.jpg", label)


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    for split in ("trainval", "test"):
        names = [f"{n}_{split}" for n in ("Abyssinian", "american_bulldog")]
        rows = [f"{name} {i + 1} {i + 1} 1" for i, name in enumerate(names)]
        lines(base / f"annotations/{split}.txt", rows)
        for label, name in enumerate(names):
            save(base / f"images/{name}.jpg", label)


def flowers(root: Path) -> None:
    base = root / "flowers-102"
    labels = [1, 2, 1, 2, 2]
    for i, label in enumerate(labels):
        save(base / f"jpg/image_{i + 1:05d}.jpg", label - 1)
    savemat(base / "imagelabels.mat", {"labels": [labels]})
    savemat(
        base / "setid.mat", {"trnid": [[1, 2]], "valid": [[3, 4]], "tstid": [[5, 1]]}
    )


def dtd(root: Path) -> None:
    base = root / "dtd" / "dtd"
    for split in ("train", "val", "test"):
        names = [f"banded/banded_{split}.jpg", f"woven/woven_{split}.jpg"]
        lines(base / f"labels/{split}1.txt", names)
        for label, name in enumerate(names):
            save(base / "images" / name, label)


def food(root: Path) -> None:
    base = root / "food-101"
    for split in ("train", "test"):
        found = {n: [f"{n}/{split}"] for n in ("apple_pie", "waffles")}
        lines(base / f"meta/{split}.json", [json.dumps(found)])
        for label, (name,) in enumerate(found.values()):
            save(base / "images" / f"{name}.jpg", label)


def aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    lines(base / "variants.txt", ["707-320", "A300 B4"])
    for at, split in enumerate(("trainval", "test")):
        rows = [f"000000{at} 707-320", f"000001{at} A300 B4"]
        lines(base / f"images_variant_{split}.txt", rows)
        for label, row in enumerate(rows):
            save(base / f"images/{row.split()[0]}.jpg", label)


def cars(root: Path) -> None:
    base = root / "stanford_cars"
    (base / "devkit").mkdir(parents=True)
    for split, place in (("train", "devkit/cars_train_annos.mat"),
                         ("test", "cars_test_annos_withlabels.mat")):  # fmt: skip
        rows = np.array(
            [("00001.jpg", 1), ("00002.jpg", 2)], dtype=[("fname", "O"), ("class", "O")]
        )
        savemat(base / place, {"annotations": rows})
        for label in (0, 1):
            save(base / f"cars_{split}/0000{label + 1}.jpg", label)
    names = np.array(["AM General Hummer", "Acura RL"], dtype=object)
    savemat(base / "devkit/cars_meta.mat", {"class_names": names})


def eurosat(root: Path) -> None:
    for label, name in enumerate(("AnnualCrop", "Forest")):
        for i in range(5):
            path = root / f"eurosat/2750/{name}/{name}_{i}.jpg"
            save(path, label, size=(64, 64))


def sun(root: Path) -> None:
    base = root / "SUN397"
    lines(base / "ClassName.txt", ["/a/abbey", "/a/apartment_building/outdoor"])
    for label, name in enumerate(("abbey", "apartment_building/outdoor")):
        for i in range(4):
            save(base / f"a/{name}/sun_{i:03d}.jpg", label)
    for part, held in (("Training", (3, 0)), ("Testing", (2,))):
        names = ("apartment_building/outdoor", "abbey")
        rows = [f"/a/{name}/sun_{i:03d}.jpg" for name in names for i in held]
        lines(base / f"{part}_01.txt", rows)


def country(root: Path) -> None:
    for split in ("train", "valid", "test"):
        for label, name in enumerate(("AD", "ZW")):
            save(root / f"country211/{split}/{name}/1.jpg", label)


def pcam(root: Path) -> None:
    import h5py

    (root / "pcam").mkdir()
    for split in ("train", "valid", "test"):
        stem = root / f"pcam/camelyonpatch_level_2_split_{split}"
        x = np.stack([np.full((96, 96, 3), level(label), np.uint8) for label in (0, 1)])
        with h5py.File(f"{stem}_x.h5", "w") as file:
            file["x"] = x
        with h5py.File(f"{stem}_y.h5", "w") as file:
            file["y"] = np.array([0, 1], np.uint8).reshape(2, 1, 1, 1)


def gtsrb(root: Path) -> None:
    base = root / "gtsrb"
    for label in (0, 1):
        save(base / f"GTSRB/Training/{label:05d}/00000_00000.ppm", label)
        save(base / f"GTSRB/Final_Test/Images/{label:05d}.ppm", label, size=(25, 31))
    head = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"
    rows = [f"{label:05d}.ppm;25;31;1;1;20;20;{label}" for label in (0, 1)]
    lines(base / "GT-final_test.csv", [head, *rows])


def imagenet(root: Path) -> None:
    wnids = {"n01440764": ("tench", "Tinca tinca"), "n01443537": ("goldfish",)}
    for split in ("train", "val"):
        for label, wnid in enumerate(wnids):
            save(root / f"imagenet/{split}/{wnid}/{wnid}_1.JPEG", label)
    torch.save((wnids, list(wnids)), root / "imagenet/meta.bin")


def tiny(root: Path) -> None:
    base = root / "tiny-imagenet-200"
    wnids = ("n01443537", "n01629819")
    lines(base / "wnids.txt", wnids[::-1])
    for label, wnid in enumerate(wnids):
        save(base / f"train/{wnid}/images/{wnid}_0.JPEG", label, size=(64, 64))
        save(base / f"val/images/val_{label}.JPEG", label, size=(64, 64))
    rows = [f"val_{i}.JPEG\t{wnid}\t0\t0\t9\t9" for i, wnid in enumerate(wnids)]
    lines(base / "val/val_annotations.txt", rows)


LAYOUTS: dict[str, tuple[Callable[[Path], None], list[int], list[int]]] = {
    "caltech-101": (caltech, [0] * 30 + [1] * 30, [0, 0, 1]),
    "oxford-pets": (pets, [0, 1], [0, 1]),
    "flowers-102": (flowers, [0, 1, 0, 1], [1, 0]),
    "dtd": (dtd, [0, 1, 0, 1], [0, 1]),
    "food-101": (food, [0, 1], [0, 1]),
    "fgvc-aircraft": (aircraft, [0, 1], [0, 1]),
    "stanford-cars": (cars, [0, 1], [0, 1]),
    "eurosat": (eurosat, [0] * 4 + [1] * 4, [0, 1]),
    "sun397": (sun, [1, 1, 0, 0], [1, 0]),
    "country211": (country, [0, 1, 0, 1], [0, 1]),
    "pcam": (pcam, [0, 1, 0, 1], [0, 1]),
    "gtsrb": (gtsrb, [0, 1], [0, 1]),
    "imagenet": (imagenet, [0, 1], [0, 1]),
    "tiny-imagenet": (tiny, [0, 1], [0, 1]),
}
"""How each is made, and its labels in train and test."""
