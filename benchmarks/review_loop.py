"""Whether corrections from the review station teach: doubtful cells against random ones.

    python benchmarks/review_loop.py [MODEL] [--data ../shared/data] [--share 0.05] [--repeats 5]

A case is half of a laboratory (of its patients, slides or fields, where they are known). A reader,
whose part the true labels play, corrects the most doubtful share of its cells, in the order of the
station's page (flagged ones first, then by confidence), or as many at random; `hemascope adapt
--keep` is fitted to those (last layer, no torch). Judged on the other half: balanced accuracy over
the laboratory's classes with more than one cell, all answers of the model allowed, one view, mean
of the repeats with the 95 % interval of the mean (Student's t), and the difference between the two.
"signed" adapts to the whole case as it would be signed: the doubtful share corrected, the rest as
the model said.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from hemascope.core.errors import RESEARCH_USE_ONLY, HemascopeError
from hemascope.core.packaged import FOR_PHOTOGRAPHS
from hemascope.inference.predictor import Predictor
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.workflows.adapt import adapt
from hemascope.workflows.progress import Reporter
from laboratories import balanced, laboratories

Labels = NDArray[np.int64]


def main() -> None:
    """Prints a line for each laboratory and way to choose."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", nargs="?", default=FOR_PHOTOGRAPHS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--labs", nargs="+", default=["tecom", "jhu", "raabin", "bccd"])
    asked = parser.parse_args()
    model = Predictor(asked.model)
    print(f"{model.info.settings.name}, {100 * asked.share:g} % corrected; {RESEARCH_USE_ONLY}")
    for name, paths, names, groups in laboratories(asked.data):
        if name not in asked.labs:
            continue
        labels = np.array([model.info.classes.index(one) for one in names])
        units = np.array(groups) if groups else np.arange(len(labels))
        num_cells = count = 0
        found: dict[str, list[float]] = {"before": [], "doubtful": [], "random": [], "signed": []}
        for repeat in range(asked.repeats):
            rng = np.random.default_rng(repeat)
            order = rng.permutation(np.unique(units))
            case = np.flatnonzero(np.isin(units, order[: len(order) // 2]))
            judge = np.setdiff1d(np.arange(len(labels)), case)
            answers = model.predict([paths[i] for i in case])
            num_cells, count = len(case), round(asked.share * len(case))
            doubt = np.array([one.confidence - one.abstain for one in answers])
            doubtful = np.argsort(doubt, kind="stable")[:count]
            said = np.array([model.class_names.index(one.predicted_class) for one in answers])
            said[doubtful] = labels[case[doubtful]]
            found["before"].append(judged(asked.model, paths, labels, judge))
            chosen = rng.permutation(len(case))[:count]
            for how, rows, taught in (
                ("doubtful", doubtful, labels[case]),
                ("random", chosen, labels[case]),
                ("signed", np.arange(len(case)), said),
            ):
                with tempfile.TemporaryDirectory() as folder:
                    table = Path(folder) / "cells.csv"
                    with table.open("w", newline="") as file:
                        writer = csv.writer(file)
                        writer.writerow(("path", "label"))
                        for i in rows:
                            label = model.class_names[taught[i]]
                            writer.writerow((paths[case[i]].resolve(), label))
                    fitted = fit(asked.model, table, Path(folder) / "model")
                    found[how].append(judged(str(fitted), paths, labels, judge))
        for how, values in found.items():
            print(f"{name:8}{num_cells:6,} cells {count:4} corrected  {how:9}{shown(values)}")
        gain = np.subtract(found["doubtful"], found["random"]).tolist()
        print(f"{name:8}doubtful less random: {shown(gain)}")


def fit(model: str, table: Path, out: Path) -> Path:
    """The model adapted to a table; itself, where the table is too small to."""
    data = DataSettings(sources=(str(table),))
    try:
        adapt(model, data, Output(out), unlabeled=False, keep=True, reporter=Reporter(quiet=True))
    except HemascopeError as error:
        print(f"not adapted: {error}")
        return Path(model)
    return out


def judged(model: str, paths: list[Path], labels: Labels, rows: Labels) -> float:
    """Balanced accuracy on some cells."""
    predictor = Predictor(model)
    answers = predictor.predict([paths[i] for i in rows])
    names = [predictor.info.classes.names.index(one.predicted_class) for one in answers]
    truth = labels[rows]
    classes = [c for c in np.unique(labels) if (labels == c).sum() > 1 and (truth == c).any()]
    return balanced(truth, np.array(names), classes)


def shown(values: list[float]) -> str:
    """Mean and the 95 % interval of the mean, in percent."""
    n = len(values)
    reach = t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else float("nan")
    mean = np.mean(values)
    low, high = 100 * (mean - reach), 100 * (mean + reach)
    return f"{100 * mean:6.1f} % [{low:.1f}, {high:.1f}] (n = {n})"


if __name__ == "__main__":
    main()
