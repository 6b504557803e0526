"""How often 95 % intervals of balanced accuracy hold the truth, where classes are small.

Command: python benchmarks/coverage.py

Draws test sets of networks whose sensitivities are known. Prints the share of 500 sets whose
interval holds the true balanced accuracy: without cells that were not seen, with one in all (as
`compare` does), and with one for each class. Takes five minutes.
"""

import numpy as np

from hemascope.core.classes import ClassSet
from hemascope.core.predictions import Predictions
from hemascope.metrics.statistics import Bootstrap

SETS = 500
CASES = (
    ((10,) * 4, (0.95,) * 4),
    ((5,) * 4, (0.9,) * 4),
    ((6,) * 8, (0.95,) * 8),
    ((40, 40, 40, 1), (0.9, 0.9, 0.9, 0.6)),
    ((40, 40, 40, 2), (0.9, 0.9, 0.9, 0.6)),
    ((40, 40, 40, 3), (0.9, 0.9, 0.9, 0.6)),
    ((40, 40, 3, 3), (0.9, 0.9, 0.6, 0.6)),
    ((20,) * 4, (0.9,) * 4),
    ((40,) * 4, (0.98,) * 4),
    ((400,) * 8, (0.99,) * 8),
    ((25,), (0.95,)),
)


def coverage(sizes: tuple[int, ...], truth: tuple[float, ...], num_unseen: float) -> float:
    """The share of test sets whose interval holds the truth."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    classes = ClassSet(tuple(f"class {i}" for i in range(max(len(sizes), 2))))
    ids = tuple(map(str, range(len(labels))))
    bootstrap = Bootstrap(labels, len(classes), num_resamples=1000, num_unseen=num_unseen)
    rng, held = np.random.default_rng(7), 0
    for _ in range(SETS):
        right = rng.random(len(labels)) < np.array(truth)[labels]
        predicted = np.where(right, labels, (labels + 1) % len(classes))
        logits = np.eye(len(classes), dtype=np.float32)[predicted]
        resampled = bootstrap([Predictions(ids, logits, labels, classes)])
        found = resampled.interval("balanced_accuracy")
        held += found.low <= np.mean(truth) <= found.high
    return held / SETS


if __name__ == "__main__":
    for sizes, truth in CASES:
        shares = (100 * coverage(sizes, truth, number) for number in (0, 1, len(sizes)))
        print(sizes, truth, *(f"{share:.1f} %" for share in shares))
