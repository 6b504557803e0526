"""How long `hemascope compare` needs for ten networks on a test set of BloodMNIST's size.

Command: python benchmarks/compare_speed.py

Draws the predictions of ten networks on 3,421 images of eight classes, runs what the command runs
on them (2,000 stratified resamples, all 45 pairs, every test), and prints the seconds. Goal: 5.
"""

import time

import numpy as np

from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.metrics.comparison import compare_networks

NUM_IMAGES, NUM_NETWORKS, NUM_RESAMPLES = 3421, 10, 2000


def main() -> None:
    """Draws, compares and prints."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(BLOOD_CELLS), NUM_IMAGES)
    ids = tuple(f"test/{i}" for i in range(NUM_IMAGES))
    networks: dict[str, dict[int, Predictions]] = {}
    for number in range(NUM_NETWORKS):
        logits = rng.normal(size=(NUM_IMAGES, len(BLOOD_CELLS))).astype(np.float32)
        logits[np.arange(NUM_IMAGES), labels] += 3
        networks[f"network-{number}"] = {0: Predictions(ids, logits, labels, BLOOD_CELLS)}
    start = time.perf_counter()
    found = compare_networks(networks, num_resamples=NUM_RESAMPLES)
    seconds = time.perf_counter() - start
    print(
        f"{NUM_IMAGES:,} images x {len(BLOOD_CELLS)} classes x {NUM_NETWORKS} networks, "
        f"{NUM_RESAMPLES:,} resamples, {len(found.pairs)} pairs: {seconds:.1f} s (goal: 5)"
    )


if __name__ == "__main__":
    main()
