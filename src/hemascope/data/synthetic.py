"""The embedded data set: rendered cells with BloodMNIST's class counts and splits."""

import numpy as np

from hemascope.core.classes import Split
from hemascope.core.images import LabeledImages
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.data.source import Request, Source

TITLE = "RENDERED CELLS, NOT BLOODMNIST"

# BloodMNIST's images per class in each split (MedMNIST v2), so that the work is the same size.
COUNTS = {
    Split.TRAIN: (852, 2181, 1085, 2026, 849, 993, 2330, 1643),
    Split.VAL: (122, 312, 155, 290, 122, 143, 333, 235),
    Split.TEST: (244, 624, 311, 579, 243, 284, 666, 470),
}


def rendered_source(request: Request) -> Source:
    """Renders all three splits; the same pixels every time."""
    spec = request.spec_for()
    parts: dict[Split | None, LabeledImages] = {}
    for seed, (split, counts) in enumerate(COUNTS.items()):
        rng = np.random.default_rng(seed)
        labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
        ids = tuple(f"{split}/{i}" for i in range(len(labels)))
        images = render(labels, seed=seed, image_size=spec.size)
        parts[Split(split)] = LabeledImages(images, labels, ids)
    path = "hemascope's generator of rendered cells"
    return Source(TITLE, path, parts, BLOOD_CELLS, spec, kind="rendered", ordered=True)
