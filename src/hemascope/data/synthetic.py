"""The embedded data set: rendered cells with BloodMNIST's class counts and splits."""

import numpy as np

from hemascope.core.classes import Split
from hemascope.core.images import LabeledImages
from hemascope.data.collections import collection
from hemascope.data.rendered import render
from hemascope.data.source import Request, Source

TITLE = "RENDERED CELLS, NOT BLOODMNIST"

# BloodMNIST's images per class in each split (MedMNIST v2), so that the work is the same size.
COUNTS = {
    Split.TRAIN: (852, 2181, 1085, 2026, 849, 993, 2330, 1643),
    Split.VAL: (122, 312, 155, 290, 122, 143, 333, 235),
    Split.TEST: (244, 624, 311, 579, 243, 284, 666, 470),
}
_SEEDS = {Split.TRAIN: 0, Split.VAL: 1, Split.TEST: 2}


def rendered_source(request: Request) -> Source:
    """Renders all three splits; the same pixels every time."""
    spec = request.spec_for()
    parts: dict[Split | None, LabeledImages] = {
        split: _render_split(split, spec.size) for split in Split
    }
    classes = collection("bloodmnist").class_set
    path = "hemascope's generator of rendered cells"
    return Source(TITLE, path, parts, classes, spec, kind="rendered", ordered=True)


def _render_split(split: Split, image_size: int) -> LabeledImages:
    rng = np.random.default_rng(_SEEDS[split])
    labels = rng.permutation(np.repeat(np.arange(len(COUNTS[split])), COUNTS[split]))
    images = render(labels, seed=_SEEDS[split], image_size=image_size)
    return LabeledImages(images, labels, tuple(f"{split}/{i}" for i in range(len(labels))))
