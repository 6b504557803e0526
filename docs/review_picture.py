"""Makes docs/images/review.png: the review station's page on rendered cells.

Command: python docs/review_picture.py

Trains a small network on rendered cells (minutes on one core), exports it, starts `hemascope serve`
with it in a temporary folder, uploads rendered cells through the page and takes a picture of it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from hemascope.data import load
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.workflows.export import export
from hemascope.workflows.plan import choose_settings
from hemascope.workflows.progress import Reporter
from hemascope.workflows.train import train

_TARGET = Path(__file__).parent / "images" / "review.png"
_SIZES = {"train": 2400, "val": 800, "test": 160}
_SHARES = (0.02, 0.05, 0.03, 0.05, 0.28, 0.09, 0.45, 0.03)  # as in a blood smear, roughly
_PHOTOGRAPHS, _PIXELS = 200, 120
_LEFT = 9  # cells to look at first


def main() -> None:
    """Writes docs/images/review.png."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, "-m", "hemascope", "serve", "--port", "0"]
        command += ["--data-dir", str(folder / "station"), "--model", str(_model(folder))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)  # noqa: S603
        with process as station:
            said = cast("IO[str]", station.stderr).readline()
            try:
                _draw(said.split()[2], _photographs(folder / "smear"))
            finally:
                station.terminate()


def _model(folder: Path) -> Path:
    """A small network trained on rendered cells, exported."""
    arrays: dict[str, Any] = {"class_names": np.array(BLOOD_CELLS.names)}
    for seed, (split, size) in enumerate(_SIZES.items()):
        labels = np.arange(size) % len(BLOOD_CELLS)
        arrays[f"{split}_images"] = render(labels, seed=seed)
        arrays[f"{split}_labels"] = labels.astype(np.uint8).reshape(-1, 1)
    np.savez_compressed(folder / "cells.npz", **arrays)
    data = DataSettings(sources=(str(folder / "cells.npz"),))
    changes = {"training.epochs": 10, "training.batch_size": 64, "precision": "fp32", "views": 1}
    settings = choose_settings("hemanet-tiny", None, changes).model_copy(update={"data": data})
    run = train(settings, load(Request(data)), Output(folder / "run"), Reporter()).path
    export(run, data, Output(folder / "model"), int8=False, fp16=False, reporter=Reporter())
    return folder / "model"


def _photographs(folder: Path) -> list[Path]:
    """Rendered cells in about the shares of a blood smear, and one file that is not an image."""
    folder.mkdir()
    labels = np.random.default_rng(0).choice(len(BLOOD_CELLS), size=_PHOTOGRAPHS, p=_SHARES)
    paths = [folder / f"cell-{i:03}.png" for i in range(1, _PHOTOGRAPHS + 1)]
    for path, cell in zip(paths, render(labels, seed=9, image_size=_PIXELS), strict=True):
        Image.fromarray(cell).save(path)
    (folder / "cell-201.png").write_bytes(b"cut off")
    return [*paths, folder / "cell-201.png"]


def _draw(url: str, files: list[Path]) -> None:
    """Reads a little of a case, and takes the picture."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(120_000)
        page.goto(url)
        page.fill("input[name=name]", "Reader")
        page.click("text=Add and start")
        page.wait_for_selector("text=Reading as")
        page.click("text=Empty case")
        page.fill("dialog [name=name]", "Smear 2026-0147")
        page.click("dialog >> text=Create")
        page.wait_for_selector(".case")
        with page.expect_file_chooser() as chooser:
            page.click(".drop >> text=Choose images or a zip")
        chooser.value.set_files(files)
        page.wait_for_selector(".message")
        page.wait_for_selector(".progress", state="detached")
        page.wait_for_selector(".message", state="detached")  # which goes by itself
        _read(page)
        page.screenshot(path=_TARGET)
        browser.close()


def _read(page: Page) -> None:
    """Agrees with the model on most of what it abstained on, as a reader would; shows one cell."""
    page.click(".rail [data-drop='#look']")
    page.focus("[role=option][aria-selected=true]")
    for _ in range(_LEFT):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+End")
    page.keyboard.press("Enter")
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector(".saved:text-is('Saved')")
    page.wait_for_timeout(1500)  # pictures


if __name__ == "__main__":
    main()
