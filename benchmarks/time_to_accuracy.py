"""How long until a network is as good as the study's: our recipe against the study's own.

Command: python benchmarks/time_to_accuracy.py --data FILE.npz [--rounds 3] [--preset hemanet-tiny]

Both train in this process, in turn, a new seed each round, and are timed from reading the data to
the first epoch after which their test accuracy reaches a mark: the study's 86.52 %, and 95 %. Where
the study's recipe never reaches a mark, its whole training counts. Every mark is read from the same
run. The test split is watched to read off the time; nothing is chosen by it.
"""

import argparse
import statistics
import time

import torch

from hemascope.core.classes import Split
from hemascope.data import load
from hemascope.data.source import Request
from hemascope.inference.torch_engine import pick_precision
from hemascope.settings.data import DataSettings
from hemascope.settings.run import RunSettings, load_preset
from hemascope.study import published as study
from hemascope.training.loop import fit
from hemascope.training.state import TrainingState
from hemascope.training.task import ClassificationTask
from hemascope.workflows.train import starting_model

MARKS = (study.TABLE_2[0].value, 0.95)


def seconds_to(settings: RunSettings, source: str) -> tuple[list[float | None], float, float]:
    """Trains once; gives the seconds to each mark, those to the end, and the best accuracy."""
    start = time.perf_counter()
    reached: list[float | None] = [None] * len(MARKS)
    dataset = load(Request(DataSettings(sources=(source,))))
    torch.manual_seed(settings.seed)
    model = starting_model(settings, dataset)
    device = torch.device("cpu")
    state = TrainingState(
        model,
        settings.training,
        seed=settings.seed,
        device=device,
        precision=pick_precision(settings.precision, device),
    )
    train, val, test = (dataset.splits[split] for split in (Split.TRAIN, Split.VAL, Split.TEST))
    best = 0.0
    task = ClassificationTask(train, state, classes=dataset.classes)
    for record in fit(state, task, val, watched={"test": test}):
        now = time.perf_counter() - start
        accuracy = record.figures["test_accuracy"]
        best = max(best, accuracy)
        for i, mark in enumerate(MARKS):
            if reached[i] is None and accuracy >= mark:
                reached[i] = now
    return reached, time.perf_counter() - start, best


def main() -> None:
    """Prints the seconds and their ratios, medians over the rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="bloodmnist")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--preset", default="hemanet-tiny")
    arguments = parser.parse_args()
    paper, ours = load_preset("paper-cnn"), load_preset(arguments.preset)
    times: dict[str, list[list[float]]] = {"the study's recipe": [], "ours": []}
    for seed in range(arguments.rounds):
        for name, settings in zip(times, (paper, ours), strict=True):
            run = settings.model_copy(update={"seed": seed})
            reached, whole, best = seconds_to(run, arguments.data)
            times[name].append([whole if seconds is None else seconds for seconds in reached])
            shown = ", ".join("never" if s is None else f"{s:.1f} s" for s in reached)
            print(f"seed {seed}, {name}: {shown}; best {100 * best:.2f} %, all {whole:.1f} s")
    print(f"{load(arguments.data).title}, {torch.get_num_threads()} threads, medians")
    goals = (0.25, 1.0)
    for i, (mark, goal) in enumerate(zip(MARKS, goals, strict=True)):
        paper_s, ours_s = (statistics.median(run[i] for run in times[name]) for name in times)
        print(
            f"to {100 * mark:.2f} %: the study's recipe {paper_s:.1f} s, ours {ours_s:.1f} s, "
            f"ratio {ours_s / paper_s:.2f} (goal {goal})"
        )


if __name__ == "__main__":
    main()
