"""The embedded data set: rendered cells with BloodMNIST's class counts and splits."""

import numpy as np

from hemascope.core.classes import BLOOD_CELLS, Split
from hemascope.core.images import Dataset, LabeledImages, pixels_md5
from hemascope.data.rendered import render

TITLE = "RENDERED CELLS, NOT BLOODMNIST"

# BloodMNIST's images per class in each split (MedMNIST v2), so that the work is the same size.
COUNTS = {
    Split.TRAIN: (852, 2181, 1085, 2026, 849, 993, 2330, 1643),
    Split.VAL: (122, 312, 155, 290, 122, 143, 333, 235),
    Split.TEST: (244, 624, 311, 579, 243, 284, 666, 470),
}
_SEEDS = {Split.TRAIN: 0, Split.VAL: 1, Split.TEST: 2}


def rendered_dataset(*, image_size: int) -> Dataset:
    """Renders all three splits; the same pixels every time."""
    splits = {split: _render_split(split, image_size) for split in Split}
    md5 = pixels_md5(splits)
    source = "hemascope's generator of rendered cells"
    return Dataset(TITLE, splits, BLOOD_CELLS, source, md5, md5_of="pixels", kind="rendered")


def _render_split(split: Split, image_size: int) -> LabeledImages:
    rng = np.random.default_rng(_SEEDS[split])
    labels = rng.permutation(np.repeat(np.arange(len(BLOOD_CELLS)), COUNTS[split]))
    images = render(labels, seed=_SEEDS[split], image_size=image_size)
    return LabeledImages(images, labels, tuple(f"{split}/{i}" for i in range(len(labels))))
