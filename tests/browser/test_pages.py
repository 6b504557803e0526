"""What a reader meets: pages that fit, can be read by all, and open with their story."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from hemascope.data import load
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.run_folder import RunFolder

if TYPE_CHECKING:
    from playwright.sync_api import Page

Open = Callable[..., "Page"]
PAGES = ("run", "study", "audit", "compare", "adapted", "unlabeled")
_MOST_PIXELS = 8000
_MOST_BYTES = 6_000_000
_WIDE = """
[...document.querySelectorAll("main *")].filter(
  e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest(".scroll, figure.wide")
).map(e => e.outerHTML.slice(0, 80))
"""


@pytest.fixture(scope="session")
def pages(
    small_npz: Path, exported: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The pages of a study of two tiny runs, of a run, an audit, a comparison, adaptations."""
    from hemascope.analyses.audit.run import audit
    from hemascope.analyses.compare.run import compare
    from hemascope.study.report import write_report
    from hemascope.workflows.adapt import adapt
    from hemascope.workflows.plan import choose_settings
    from hemascope.workflows.progress import Reporter
    from hemascope.workflows.train import train

    folder = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        counts = dict.fromkeys(("train", "val", "test"), (6,) * 8)
        patch.setattr("hemascope.data.synthetic.COUNTS", counts)
        data = DataSettings(sources=("synthetic",))
        dataset = load(Request(data))
        for preset in ("paper-cnn", "paper-mlnn"):
            settings = choose_settings(preset, None, {"training.epochs": 1})
            settings = settings.model_copy(update={"data": data})
            train(settings, dataset, Output(folder / "study" / preset), Reporter())
        write_report(folder / "study")
    arrays = dict(np.load(small_npz))
    arrays["test_images"][2] = arrays["train_images"][10]
    arrays["val_images"][3] = arrays["val_images"][4]
    arrays["train_images"][30] = 255
    np.savez(folder / "faulty.npz", **arrays)
    faulty = DataSettings(sources=(str(folder / "faulty.npz"),))
    audit(faulty, Output(folder / "audit"), Reporter())
    compare([folder / "study"], Output(folder / "compare"), views=False, num_resamples=200)
    for i, image in enumerate(render(np.arange(48) % 4, seed=0)):
        place = folder / "cells" / BLOOD_CELLS.names[i % 4]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    cells = DataSettings(sources=(str(folder / "cells"),))
    for name in ("adapted", "unlabeled"):
        is_unlabeled = name == "unlabeled"
        out = Output(folder / name)
        adapt(str(exported), cells, out, unlabeled=is_unlabeled, keep=False, reporter=Reporter())
    return {
        **{n: RunFolder(folder / n).page for n in ("compare", "adapted", "unlabeled")},
        "run": RunFolder(folder / "study" / "paper-cnn").page,
        "study": RunFolder(folder / "study").page,
        "audit": folder / "audit" / "audit.html",
    }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows_and_axe_finds_nothing_serious(
    open_page: Open, pages: dict[str, Path], name: str, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for width in (390, 768, 1280):
        page = open_page(pages[name], width=width, scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(_WIDE) == []
        if width == (1280 if scheme == "light" else 390):
            found = Axe().run(page).response["violations"]
            serious = [v for v in found if v["impact"] in ("serious", "critical")]
            assert [(v["id"], v["nodes"][0]["html"][:100]) for v in serious] == []
        page.close()


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens_short_and_stays_one_small_file(
    open_page: Open, pages: dict[str, Path], name: str, tmp_path: Path
) -> None:
    alone = Path(shutil.copy(pages[name], tmp_path))
    page = open_page(alone)
    assert page.evaluate("document.documentElement.scrollHeight") <= _MOST_PIXELS
    assert alone.stat().st_size < _MOST_BYTES
    images = "[...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    assert page.evaluate(images) == 0


@pytest.mark.parametrize("name", PAGES)
def test_every_link_has_its_target_and_its_section_is_marked(
    open_page: Open, pages: dict[str, Path], name: str
) -> None:
    page = open_page(pages[name])
    links = page.evaluate("[...document.links].map(a => a.getAttribute('href'))")
    assert len(links) > 3
    assert all(link.startswith("#") for link in links)
    assert [link for link in links if page.locator(link).count() != 1] == []
    page.click(f".bar a[href='{links[2]}']")
    page.wait_for_selector(f".bar a[href='{links[2]}'][aria-current]")


def test_the_first_screen_tells_what_was_found(open_page: Open, pages: dict[str, Path]) -> None:
    page = open_page(pages["study"])
    assert page.locator("h1").inner_text().startswith("On rendered cells, ")
    assert "95\N{NO-BREAK SPACE}% interval" in page.locator("h1").inner_text()
    height = page.evaluate("innerHeight")
    for what in (".rendered", ".tiles", "figure.shown >> nth=0", "figure.shown >> nth=1"):
        box = page.locator(what).first.bounding_box()
        assert box is not None
        assert box["y"] < height, what
    assert page.locator(".tiles div").count() == 2


@pytest.mark.parametrize("name", ["run", "study"])
def test_rendered_cells_are_named_once_and_never_compared_with_published_figures(
    open_page: Open, pages: dict[str, Path], name: str
) -> None:
    page = open_page(pages[name])
    assert page.locator(".rendered").count() == 1
    text = page.evaluate("document.body.textContent")
    assert "86.5" not in text
    assert "the study's" not in text.lower()


def test_folded_parts_are_printed(open_page: Open, pages: dict[str, Path]) -> None:
    page = open_page(pages["study"])
    page.emulate_media(media="print")
    hidden = "[...document.querySelectorAll('details table')].filter(t => !t.offsetHeight).length"
    assert page.evaluate(hidden) == 0
