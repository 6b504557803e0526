"""The review page at many cells: first cells after an upload, scrolling, reclassifying.

Command: python benchmarks/review_page.py [--cells 2000] [--model MODEL]

Starts `hemascope serve` on a free port with an empty folder, drives its page in headless Chromium,
and prints milliseconds. Rendered cells are uploaded through the page; a time to paint ends when the
frame after the change has been drawn. The goals: first answered cell within 1,000 ms of the end of
the upload, frames and reclassifying under 50 ms.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from hemascope.core.packaged import FOR_PHOTOGRAPHS
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render

_FIRST_CELL = """
new MutationObserver(() => {
  if (window.firstCell || !document.querySelector(".cell:not(.waits)")) return;
  window.firstCell = -1;
  requestAnimationFrame(() => setTimeout(() => {
    window.firstCell = performance.now();
    document.body.dataset.first = "";
  }));
}).observe(document.body, { childList: true, subtree: true, attributes: true });
"""
_AFTER_UPLOAD = """
() => window.firstCell - performance.getEntriesByType("resource")
  .filter((one) => one.name.includes("/files?")).at(-1).responseEnd
"""
_SCROLL = """
async (step) => {
  const gallery = document.querySelector(".gallery");
  gallery.scrollTop = 0;
  const frame = () => new Promise(requestAnimationFrame);
  const times = [];
  let nodes = 0;
  let last = await frame();
  for (let i = 0; i < 300 && gallery.scrollTop + gallery.clientHeight < gallery.scrollHeight; i++) {
    gallery.scrollTop += step;
    const now = await frame();
    times.push(now - last);
    last = now;
    nodes = Math.max(nodes, gallery.querySelectorAll("*").length);
  }
  return { times, nodes };
}
"""
_RECLASSIFY = """
async (keys) => {
  const times = [];
  for (let i = 0; i < 60; i++) {
    const key = keys[i % keys.length];
    const before = performance.now();
    const pressed = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
    document.activeElement.dispatchEvent(pressed);
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
    times.push(performance.now() - before);
    await new Promise((done) => setTimeout(done, 100));
  }
  return times;
}
"""


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=2000)
    parser.add_argument("--model", default=FOR_PHOTOGRAPHS)
    args = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with TemporaryDirectory() as folder, serving(Path(folder) / "station", args.model) as url:
        files = save_cells(Path(folder) / "cells", args.cells)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(600_000)
            measure(page, url, files)
            browser.close()


def measure(page: Page, url: str, files: list[Path]) -> None:
    """Uploads, waits for the answers, scrolls, reclassifies."""
    page.goto(url)
    page.fill("input[name=name]", "Reader")
    page.click("text=Add and start")
    page.wait_for_selector("text=Reading as")
    page.evaluate(_FIRST_CELL)
    with page.expect_file_chooser() as chooser:
        page.click("text=Choose images or a zip")
    chooser.value.set_files(files)
    page.wait_for_selector(
        "body[data-first]"
    )  # the page's policy forbids to wait for an expression
    print(f"first answered cell after the upload: {page.evaluate(_AFTER_UPLOAD):.0f} ms")
    page.wait_for_selector(".progress", state="detached")
    print(f"cells: {page.locator('h1 + .soft').inner_text()}")
    for step in (60, 900):
        page.wait_for_timeout(500)
        found: dict[str, Any] = page.evaluate(_SCROLL, step)
        print_times(f"scrolling {step} px a frame", found["times"])
        print(f"most nodes in the gallery: {found['nodes']}")
    page.evaluate("document.querySelector('.gallery').scrollTop = 0")
    page.click(".cell >> nth=0")
    print_times("reclassifying by key, to paint", page.evaluate(_RECLASSIFY, ["5", "7", "6", "2"]))
    page.wait_for_selector("text=Saved")


def print_times(what: str, times: list[float]) -> None:
    """Prints the middle and the upper end of some times."""
    median, p95 = np.quantile(times, [0.5, 0.95])
    print(f"{what} (n = {len(times)}): {median:.0f} ms, p95 {p95:.0f}, most {max(times):.0f}")


def save_cells(folder: Path, count: int, *, size: int = 84) -> list[Path]:
    """Rendered cells as PNG files."""
    folder.mkdir(parents=True)
    labels = np.arange(count) % len(BLOOD_CELLS)
    paths = [folder / f"cell-{i:05}.png" for i in range(count)]
    for path, cell in zip(paths, render(labels, seed=count, image_size=size), strict=True):
        Image.fromarray(cell).save(path)
    return paths


@contextmanager
def serving(folder: Path, model: str) -> Generator[str]:
    """A station on a free port, and its address."""
    command = [sys.executable, "-m", "hemascope", "serve", "--port", "0"]
    command += ["--data-dir", str(folder), "--model", model]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            said = cast("IO[str]", process.stderr).readline()
            yield said.split()[2]
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
