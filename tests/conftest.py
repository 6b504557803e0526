"""Small data, the real data where it lies, and the command line in this process."""

import os
import shutil
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.images import Dataset
from hemascope.core.predictions import Predictions
from hemascope.data import load
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.data.source import Request
from hemascope.metrics import evaluate_all
from hemascope.report import plots
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.run_folder import RunResults

pytest_plugins = ["stations"]  # fixtures of the review station

# These take minutes: begun first, they leave no process alone at the end.
_LONGEST = ("test_the_study_is_reproduced", "test_deeper_layers_are_fitted_where_cross_validation")
_SIZES = {"train": 64, "val": 16, "test": 24}


@pytest.hookimpl(trylast=True)  # once they are shuffled
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.name.startswith(_LONGEST))


def small_arrays() -> dict[str, NDArray[np.uint8]]:
    """Rendered cells in MedMNIST's layout; every class occurs in every split."""
    arrays: dict[str, NDArray[np.uint8]] = {}
    for seed, (split, size) in enumerate(_SIZES.items()):
        labels = np.arange(size) % len(BLOOD_CELLS)
        arrays[f"{split}_images"] = render(labels, seed=seed)
        arrays[f"{split}_labels"] = labels.astype(np.uint8).reshape(-1, 1)
    return arrays


def read(source: str | Path, **options: Any) -> Dataset:
    """A data set, with the class names of BloodMNIST where the source says none."""
    return load(Request(data_settings(source, **options)))


def data_settings(source: str | Path, **options: Any) -> DataSettings:
    if str(source).endswith(".npz") and "classes" not in options:
        options.setdefault("collection", "bloodmnist")
    return DataSettings(sources=(str(source),), **options)


def save_npz(path: Path, arrays: dict[str, Any]) -> None:
    np.savez_compressed(path, **arrays)


def save_cells(
    root: Path,
    counts: Mapping[str, int],
    *,
    size: int = 28,
    name: Callable[[int], str] = "{0}.png".format,
) -> Path:
    """Rendered cells as files, so many in each folder below `root`, all different."""
    total = sum(counts.values())
    labels = np.arange(total) % len(BLOOD_CELLS)
    images = iter(render(labels, seed=total, image_size=size))
    for folder, count in counts.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(next(images)).save(root / folder / name(i))
    return root


@pytest.fixture(scope="session", autouse=True)
def drawing_is_not_traced() -> Iterator[None]:
    """Coverage follows no line of Matplotlib's, which would take half as long again."""
    draw = Figure.savefig

    def untraced(figure: Figure, *args: Any, **options: Any) -> None:
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            draw(figure, *args, **options)
        finally:
            sys.settrace(trace)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", untraced)
        yield


@contextmanager
def without_pdfs() -> Generator[Callable[[], None]]:
    """Figures have no PDF, which takes half the time of a short run, until what this gives is
    called."""
    files: dict[str, Any] = plots._FILES  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
    whole = dict(files)
    files.pop("pdf", None)
    try:
        yield lambda: files.update(whole)
    finally:
        files.update(whole)


@pytest.fixture(autouse=True)
def draw_pdfs() -> Iterator[Callable[[], None]]:
    """Figures have a PDF in what tests share, and from where a test calls this."""
    with without_pdfs() as draw:
        yield draw


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "small.npz"
    save_npz(path, {**small_arrays(), "class_names": np.array(BLOOD_CELLS.names)})
    return path


@pytest.fixture(scope="session")
def trained(small_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the study's CNN over two epochs, trained once for all tests: not to be changed."""
    from hemascope.workflows.plan import choose_settings
    from hemascope.workflows.progress import Reporter
    from hemascope.workflows.train import train

    settings = choose_settings("paper-cnn", None, {"training.epochs": 2})
    out = tmp_path_factory.mktemp("trained") / "run"
    data = DataSettings(sources=(str(small_npz),))
    settings = settings.model_copy(update={"data": data})
    return train(settings, load(Request(data)), Output(out), Reporter()).path


@pytest.fixture(scope="session")
def cells_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered cells, and enough of them in val for prediction sets of 99 %."""
    arrays: dict[str, NDArray[np.uint8]] = {}
    for seed, (split, size) in enumerate({"train": 256, "val": 128, "test": 32}.items()):
        labels = np.arange(size) % len(BLOOD_CELLS)
        arrays[f"{split}_images"] = render(labels, seed=seed)
        arrays[f"{split}_labels"] = labels.astype(np.uint8).reshape(-1, 1)
    path = tmp_path_factory.mktemp("data") / "cells.npz"
    save_npz(path, {**arrays, "class_names": np.array(BLOOD_CELLS.names)})
    return path


@pytest.fixture(scope="session")
def tiny(cells_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of hemanet-tiny over four epochs, trained once for all tests: not to be changed."""
    from hemascope.workflows.plan import choose_settings
    from hemascope.workflows.progress import Reporter
    from hemascope.workflows.train import train

    changes = {"training.epochs": 4, "training.batch_size": 32, "precision": "fp32", "views": 1}
    settings = choose_settings("hemanet-tiny", None, changes)
    out = tmp_path_factory.mktemp("tiny") / "run"
    data = DataSettings(sources=(str(cells_npz),))
    settings = settings.model_copy(update={"data": data})
    with without_pdfs():
        return train(settings, load(Request(data)), Output(out), Reporter()).path


@pytest.fixture(scope="session")
def exported(tiny: Path, cells_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same network exported in fp32: not to be changed."""
    from hemascope.workflows.export import export
    from hemascope.workflows.progress import Reporter

    out = tmp_path_factory.mktemp("exported") / "model"
    data = DataSettings(sources=(str(cells_npz),))
    export(tiny, data, Output(out), int8=False, fp16=False, reporter=Reporter())
    return out


@pytest.fixture(scope="session")
def exported_with_weights(
    tiny: Path, cells_npz: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same with its weights for PyTorch: not to be changed."""
    from hemascope.workflows.export import export
    from hemascope.workflows.progress import Reporter

    out = tmp_path_factory.mktemp("exported") / "weights"
    data = DataSettings(sources=(str(cells_npz),))
    export(tiny, data, Output(out), int8=False, fp16=False, weights=True, reporter=Reporter())
    return out


@pytest.fixture
def run_folder(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to do with as a test likes."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def real_data() -> Path:
    """The folder of real images."""
    folder = os.environ.get("HEMASCOPE_DATA")
    if not folder:
        pytest.skip("HEMASCOPE_DATA is not set: no real images here")
    return Path(folder)


@pytest.fixture
def real_npz(real_data: Path) -> Path:
    return real_data / "bloodmnist_rebuilt_28.npz"


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture
def hemascope(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Runs the command line in this process."""
    from hemascope.__main__ import main

    def run(*args: str | Path) -> Outcome:
        monkeypatch.setattr("sys.argv", ["hemascope", *map(str, args)])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return Outcome(code, printed.out, printed.err)

    return run


@pytest.fixture
def random_predictions() -> Predictions:
    """Two hundred images with a lean towards the truth; every class occurs."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(200) % 8)
    logits = rng.normal(size=(200, 8)).astype(np.float32)
    logits[np.arange(200), labels] += 1.5
    return Predictions(tuple(f"test/{i}" for i in range(200)), logits, labels, BLOOD_CELLS)


def results_of(predictions: Predictions, **changes: Any) -> RunResults:
    """The results of a network that answered so, with figures of speed made up."""
    facts: dict[str, Any] = {
        "name": "paper-cnn",
        "seed": 0,
        "trained_on": "t",
        "class_names": predictions.classes.names,
        "num_parameters": 422_344,
        "size_bytes": 1_690_400,
        "data": "t",
        "data_md5": "0" * 32,
        "split": "test",
        "precision": "fp32",
        "num_seen": 0,
        "latency_ms_batch1": 1.0,
        "latency_ms_batch128": 0.1,
    }
    return RunResults(**dict(evaluate_all(predictions)), **(facts | changes))
