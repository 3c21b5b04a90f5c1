"""Handwritten digits of 8 x 8 pixels, and their names letter by letter. Imports the standard library only."""

from __future__ import annotations

import gzip
import random
import zipfile
from pathlib import Path

from services.datasets.series import cache_folder
from services.datasets.tables import START_MS, STEP_MS, Split, Table
from services.datasets.wheels import DataUnavailable, Wheel, fetch

WHEEL = Wheel(
    project="scikit-learn",
    version="1.7.2",
    filename="scikit_learn-1.7.2-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
    sha256="89877e19a80c7b11a2891a27c21c4894fb18e2c2e077815bcade10d34287b20d",
    megabytes=10,
    # Of its many builds always the same one, whatever runs here: nothing of it is run.
    build=(
        "--platform",
        "manylinux2014_x86_64",
        "--python-version",
        "3.11",
        "--implementation",
        "cp",
        "--abi",
        "cp311",
    ),
)
MEMBER = "sklearn/datasets/data/digits.csv.gz"
CITATION = (
    "Alpaydin, E. & Kaynak, C. (1998). Optical Recognition of Handwritten Digits [Dataset]. UCI Machine Learning "
    "Repository. https://doi.org/10.24432/C50P49. Licence: CC BY 4.0."
)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PIXELS = tuple(f"p{row}{column}" for row in range(8) for column in range(8))  # ink of 0 .. 16


def digit_names(seed: int = 0, cache: Path | None = None) -> Split:
    """64 pixels and the letters of the digit's name, put apart by spaces; a fifth of the 1,797 images is held back.
    Raises DataUnavailable if the wheel cannot be had.
    """
    with zipfile.ZipFile(fetch(WHEEL, cache_folder(cache))) as wheel:
        lines = gzip.decompress(wheel.read(MEMBER)).decode("ascii").splitlines()
    images = [[round(float(cell)) for cell in line.split(",")] for line in lines]
    if not images or any(len(image) != 65 or not 0 <= image[64] <= 9 for image in images):
        raise DataUnavailable(f"{MEMBER} in {WHEEL.filename} does not hold images of 64 pixels and their digits")
    random.Random(f"digits {seed}").shuffle(images)
    cut = len(images) // 5
    return Split(_table(images[cut:], "train"), _table(images[:cut], "test"), CITATION)


def _table(images: list[list[int]], part: str) -> Table:
    rows = [
        (f"{part}-{k}", str(START_MS + STEP_MS * k), *map(str, image[:64]), " ".join(NAMES[image[64]]))
        for k, image in enumerate(images)
    ]
    return Table(("stream", "at", *PIXELS, "name"), tuple(rows))
