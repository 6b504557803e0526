"""The review station's page, driven end to end against the real server."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from stations import cell_files

if TYPE_CHECKING:
    from playwright.sync_api import APIResponse, Browser, Page, Route

_MOST_NODES = 300
_REST = 1300  # milliseconds: longer than what is looked at has to rest
_HELD = "[role=option][aria-selected=true]"


@pytest.fixture(scope="module")
def serve(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """Starts a station on a free port; its address, and what it said, come back."""
    running: list[subprocess.Popen[str]] = []

    def started(*options: str) -> tuple[str, str, subprocess.Popen[str]]:
        folder = tmp_path_factory.mktemp("station")
        command = [sys.executable, "-m", "hemascope", "serve", "--port", "0"]
        command += ["--data-dir", str(folder), "--model", str(exported), *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"http://\S+:\d+", said)):
            line = process.stderr.readline()
            assert line, said
            said += line
        return found[0], said, process

    yield started
    for process in running:
        process.terminate()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture(scope="module")
def station(serve: Callable[..., Any]) -> str:
    return serve()[0]


@pytest.fixture
def visit(chromium: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Opens a station's page as a reader; nothing may leave the station, nothing may break."""
    foreign: list[str] = []
    broken: list[str] = []

    def opened(url: str, reader: str = "", **options: Any) -> "Page":
        options.setdefault("viewport", {"width": 1280, "height": 900})
        page = chromium.new_context(**options).new_page()
        page.set_default_timeout(15_000)
        page.on(
            "request",
            lambda one: (
                None if one.url.startswith((url, "blob:", "data:")) else foreign.append(one.url)
            ),
        )
        page.on("pageerror", lambda error: broken.append(str(error)))
        page.on(
            "console",
            lambda one: (
                broken.append(one.text)
                if one.type == "error"
                and "net::ERR" not in one.text
                and "status of 4" not in one.text
                else None
            ),
        )
        page.goto(url)
        if reader:
            read_as(page, reader)
        return page

    yield opened
    for context in chromium.contexts:
        context.close()
    assert foreign == []
    assert broken == []


def read_as(page: "Page", reader: str) -> None:
    page.fill("[name=name]", reader)
    page.click("text=Add and start")
    page.wait_for_selector(f"text=Reading as {reader}")


def upload(page: "Page", files: list[tuple[str, bytes]]) -> str:
    """A case of these files, made on the start screen, analyzed."""
    with page.expect_file_chooser() as chooser:
        page.click("text=Choose images or a zip")
    payload = [
        {"name": name, "mimeType": "application/octet-stream", "buffer": content}
        for name, content in files
    ]
    chooser.value.set_files(payload)  # pyright: ignore[reportArgumentType]
    page.wait_for_selector("text=added")
    page.wait_for_selector(".progress", state="detached")
    page.wait_for_selector(".cell:not(.waits)")
    return page.url.rsplit("/", 1)[-1]


def ask(page: "Page", method: str, path: str, body: Any = None) -> "APIResponse":
    """Asks the API beside the page."""
    url = "/".join(page.url.split("/")[:3]) + f"/api/v1{path}"
    return page.context.request.fetch(url, method=method, data=body)


def reader_of(page: "Page") -> str:
    return page.evaluate("JSON.parse(localStorage.getItem('hemascope.reader')).id")


def saved(page: "Page") -> None:
    page.wait_for_selector(".saved:text-is('Saved')")


def count(page: "Page", name: str) -> int:
    return int(page.locator(f".rail [data-drop='{name}'] em").inner_text())


def name_all(page: "Page", key: str) -> None:
    """Names what is left under "Look first", the group as one, by keyboard."""
    page.click(".rail [data-drop='#look']")
    page.focus(_HELD)
    page.keyboard.press("Control+a")
    page.keyboard.press(key)
    saved(page)


def look_through(page: "Page") -> None:
    for name in page.eval_on_selector_all(
        ".class:has(.unseen)", "all => all.map(one => one.dataset.drop)"
    ):
        page.click(f".rail [data-drop='{name}']")
        page.wait_for_selector(f".group[data-drop='{name}']")
        # A class that fits the screen may be seen by itself before the button is pressed.
        page.evaluate(
            "name => [...document.querySelectorAll(`.group[data-drop='${name}'] header button`)]"
            ".find((one) => one.textContent === 'Seen')?.click()",
            name,
        )
    page.wait_for_selector(".unseen", state="detached")
    saved(page)


@pytest.fixture
def case(station: str, visit: Callable[..., "Page"]) -> "Page":
    """A case of 24 cells and a file that is no image inside, read by its first reader."""
    page = visit(station, "Ada")
    upload(page, [*cell_files(24, size=28).items(), ("broken.png", b"\x89PNG\r\n\x1a\nnothing")])
    return page


def test_from_upload_to_a_signed_and_exported_differential(
    case: "Page", visit: Callable[..., "Page"], station: str
) -> None:
    page = case
    look = count(page, "#look")
    assert look >= 1
    assert page.locator(".cell.broken").count() == 1
    page.click("text=Sign off")
    page.wait_for_selector("dialog >> text=Cells unidentified")  # the station's own words
    page.click('dialog >> role=button[name="Look first"]')
    assert page.locator(".group.look [role=option]:focus").count() == 1
    # The mouse: what is unreadable aside, then a cell carried to a class.
    page.click("text=Set unreadable aside")
    saved(page)
    assert count(page, "not counted") == 1
    before = count(page, "basophil")
    page.locator(".cell >> nth=0").drag_to(page.locator(".rail [data-drop=basophil]"))
    saved(page)
    assert count(page, "basophil") == before + 1
    # The keyboard: one more, taken back, done again.
    page.click(".cell >> nth=0")
    page.keyboard.press("1")
    page.keyboard.press("Control+z")
    assert count(page, "basophil") == before + 1
    page.keyboard.press("Control+Shift+Z")
    saved(page)
    assert count(page, "basophil") == before + 2
    if count(page, "#look"):
        name_all(page, "7")
    look_through(page)

    second = visit(station, "Grace")
    second.goto(page.url)
    second.click(".notice >> text=Read as second reader")
    second.wait_for_selector("text=Finish reading")
    assert count(second, "#look") >= 1  # the first reader's answers are not shown
    second.click("text=Set unreadable aside")
    name_all(second, "5")
    look_through(second)
    second.click("text=Finish reading")
    second.click("dialog >> text=Finish reading >> nth=-1")
    second.click("text=See the agreement")
    second.wait_for_selector(".tiles >> text=kappa")
    assert second.locator(".cards li").count() >= 1

    page.reload()
    page.click("text=Sign off")
    page.click("dialog >> text=Sign off >> nth=-1")
    page.wait_for_selector("text=Signed by Ada")
    assert page.locator(".primary:has-text('Sign off')").count() == 0
    other = visit(station, "Linus")  # who read nothing, and sees what was signed
    other.goto(page.url)
    other.wait_for_selector("text=Signed by Ada")
    other.wait_for_selector(".cell >> nth=0")  # the cells come after the case
    for name in ("#look", "basophil", "neutrophil", "not counted"):
        assert count(other, name) == count(page, name)
    page.click("summary:has-text('Export')")
    with page.expect_download() as download:
        page.click("text=CSV")
    text = Path(download.value.path()).read_text("utf-8")
    assert "basophil" in text
    assert "research use only" in text.lower()
    page.click("summary:has-text('Export')")
    with page.expect_popup() as report:
        page.click("text=Printable report")
    assert "research use only" in report.value.inner_text("body").lower()
    page.click(".notice >> text=Reopen")
    page.fill("[name=reason]", "a cell was overlooked")
    page.click("dialog >> text=Reopen >> nth=-1")
    page.wait_for_selector("text=Sign off")
    page.click("summary:has-text('Case')")
    page.click("text=Trail of changes")
    page.wait_for_selector("text=reopened: a cell was overlooked")


def test_the_keyboard_alone_does_everything(case: "Page") -> None:
    page = case
    page.focus("[role=option][tabindex='0']")
    first = page.evaluate("document.activeElement.id")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert page.locator(_HELD).count() == 2
    page.keyboard.press("Control+Home")
    assert page.evaluate("document.activeElement.id") == first
    page.keyboard.press("Enter")
    saved(page)
    assert page.evaluate("document.activeElement.id") != first  # on to the next
    assert page.evaluate("document.activeElement.getAttribute('role')") == "option"
    for text, key in (("smudged", "Enter"), ("not this", "Escape")):
        page.keyboard.press("/")
        page.keyboard.type(text)
        page.keyboard.press(key)
        page.wait_for_selector("[role=option]:focus")  # back at the cell
    saved(page)
    assert page.locator(".cell.noted").count() == 1
    assert page.input_value(".comment input") == "smudged"
    page.click("text=Network")
    page.keyboard.press("ArrowRight")  # a click has not taken the keys away
    page.wait_for_selector("[role=option]:focus")
    assert page.input_value(".comment input") == ""
    page.keyboard.press("?")
    page.wait_for_selector("dialog >> text=Undo")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog", state="detached")
    page.keyboard.press(".")
    page.wait_for_selector(".photo .map, .over-photo")
    page.keyboard.press(",")
    page.wait_for_selector(".pair")


def test_looked_through_is_what_the_reader_looked_at(case: "Page") -> None:
    page = case
    path = "/cases/" + page.url.rsplit("/", 1)[-1]
    cells = ask(page, "GET", f"{path}/cells?reader={reader_of(page)}").json()["items"]
    names = ["basophil", "monocyte", "neutrophil", "platelet"]
    changes = [
        {"cell": one["id"], "from": one["class"], "to": names[i % 4]}
        for i, one in enumerate(cells)
        if not one["error"]
    ]
    assert ask(
        page, "POST", f"{path}/corrections", {"reader": reader_of(page), "changes": changes}
    ).ok
    page.set_viewport_size({"width": 1280, "height": 420})
    page.reload()
    page.wait_for_selector(".cell")
    rings = page.locator(".class .unseen").count()
    assert rings == 4
    page.wait_for_timeout(_REST)
    assert page.locator(".class .unseen").count() == rings  # shown, but nobody did anything
    page.click(".cell:not(.broken) >> nth=0")
    page.keyboard.press("7")
    page.click(".rail [data-drop=platelet]")
    page.click("[aria-label=Undo]")
    page.wait_for_selector(".group[data-drop=basophil] [aria-selected=true]:focus")  # in sight
    page.wait_for_timeout(_REST)
    assert page.locator(".class .unseen").count() == rings  # an undo's jump is not a look
    page.mouse.move(500, 300)
    for _ in range(20):
        page.mouse.wheel(0, 100)
    assert page.locator(".class .unseen").count() == rings  # flicked past
    page.keyboard.press("Control+Home")
    for _ in names:
        page.wait_for_timeout(_REST)
        page.keyboard.press("PageDown")
    page.wait_for_selector(".class .unseen", state="detached")


def test_an_image_that_failed_is_no_look_and_is_asked_for_again(case: "Page") -> None:
    page = case
    thumbnails = re.compile(r"\.jpg$")
    page.route(thumbnails, lambda route: route.abort())
    page.reload()
    page.wait_for_selector(".cell[data-image=failed]")
    assert not page.locator(".cell[data-image=shown]").count()
    page.keyboard.press("Control+Home")
    page.click(".cell:not(.broken) >> nth=0")
    page.wait_for_timeout(_REST)
    rings = page.locator(".class .unseen").count()
    assert rings > 0  # a class of blank cells is not one that was looked through
    page.unroute(thumbnails)
    page.wait_for_selector(".cell[data-image=failed]", state="detached")
    assert ".jpg" in page.locator(".cell[data-image=shown] >> nth=0").evaluate(
        "node => node.style.backgroundImage"
    )
    page.wait_for_timeout(_REST)
    assert page.locator(".class .unseen").count() < rings  # by itself, once they are there


def test_a_box_selects_and_escape_ends_a_drag(case: "Page") -> None:
    page = case
    box = page.locator(".gallery").bounding_box()
    cell = page.locator(".cell >> nth=0").bounding_box()
    assert box is not None
    assert cell is not None
    page.mouse.move(box["x"] + 3, cell["y"] + 5)
    page.mouse.down()
    page.mouse.move(cell["x"] + 2 * cell["width"], cell["y"] + 20, steps=3)
    page.mouse.up()
    held = page.locator(_HELD).count()
    assert held >= 2
    page.mouse.move(cell["x"] + 9, cell["y"] + 9)
    page.mouse.down()
    page.mouse.move(60, 200, steps=3)
    page.wait_for_selector(".ghost")
    page.keyboard.press("Escape")
    page.mouse.up()
    assert page.locator(".ghost").count() == 0
    assert page.locator(".saved").inner_text() == ""


def test_taps_select_several_and_move_them(station: str, visit: Callable[..., "Page"]) -> None:
    phone = {"width": 390, "height": 740}
    page = visit(station, "Ada", viewport=phone, has_touch=True, is_mobile=True)
    upload(page, list(cell_files(8, seed=24, size=28).items()))
    before = count(page, "basophil")
    page.tap("summary:has-text('View')")
    page.tap("text=Select several by tapping")
    page.wait_for_selector(".notice >> text=0 cells selected")
    for cell in page.locator(".group:not([data-drop=basophil]) .cell").all()[:2]:
        cell.tap()
    page.wait_for_selector(".notice >> text=2 cells selected")
    page.tap(".rail [data-drop=basophil]")
    saved(page)
    assert count(page, "basophil") == before + 2
    page.wait_for_selector(".notice >> text=0 cells selected")


def test_an_absent_station_loses_nothing_and_a_conflict_is_told(case: "Page") -> None:
    page = case
    before = count(page, "basophil")
    corrections = re.compile("/corrections$")
    page.route(corrections, lambda route: route.abort())
    page.click(".cell >> nth=0")
    page.keyboard.press("1")
    page.keyboard.press("1")
    page.wait_for_selector("text=2 changes not saved.")
    assert count(page, "basophil") == before + 2  # shown, and said not to be saved
    page.unroute(corrections)
    page.click("text=Try now")
    saved(page)
    path = "/cases/" + page.url.rsplit("/", 1)[-1]
    cells = ask(page, "GET", f"{path}/cells?reader={reader_of(page)}").json()["items"]
    assert sum(one["class"] == "basophil" for one in cells) == before + 2

    # Another window is first.
    id_ = page.locator(".cell >> nth=0").get_attribute("data-id")
    [mine] = [one for one in cells if one["id"] == id_]
    change = {"cell": id_, "from": mine["class"], "to": "monocyte"}
    body = {"reader": reader_of(page), "changes": [change]}
    assert ask(page, "POST", f"{path}/corrections", body).ok
    monocytes = count(page, "monocyte")
    page.click(".cell >> nth=0")
    page.keyboard.press("1")
    page.wait_for_selector("text=Not changed: 1 cell.")
    page.wait_for_selector(f".rail [data-drop=monocyte] em:text-is('{monocytes + 1}')")
    assert count(page, "basophil") == before + 2


def test_2000_cells_are_few_nodes(case: "Page") -> None:
    page = case

    def many(route: "Route") -> None:
        """The station's own cells, each many times."""
        answer = route.fetch()
        cells = answer.json()["items"]
        copies = [{**cells[i % len(cells)], "id": f"c{i}", "position": i} for i in range(2000)]
        route.fulfill(response=answer, json={"items": copies, "next_cursor": None})

    page.route(re.compile("/cells[?]"), many)
    page.reload()
    page.wait_for_selector("text=2,000 cells")
    page.wait_for_selector(".cell")
    for width, height in ((1280, 900), (2560, 1440), (3840, 2160), (390, 844)):
        page.set_viewport_size({"width": width, "height": height})
        for part in (0, 0.5, 1):
            page.eval_on_selector(".gallery", f"one => one.scrollTo(0, {part} * one.scrollHeight)")
            page.wait_for_timeout(60)
            assert 8 < page.locator(".gallery *").count() <= _MOST_NODES


_OVERFLOW = """
() => [...document.querySelectorAll("body *")]
  .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
  .filter((one) => !one.closest(".scroll, .rail, .gallery, .sr"))
  .map((one) => one.outerHTML.slice(0, 90))
"""


def test_nothing_overflows_and_axe_finds_nothing_serious(case: "Page") -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = case
    home = page.url.split("#")[0]
    page.click(".cell >> nth=0")
    for address in (f"{home}#/", page.url, f"{page.url}/trail"):
        page.goto(address)
        page.wait_for_selector(".cell, .card, .list")
        page.evaluate(
            "document.querySelectorAll('aside details').forEach((one) => { one.open = true; })"
        )
        for scheme, width in (("light", 1280), ("dark", 768), ("light", 390), ("dark", 390)):
            page.emulate_media(color_scheme=scheme)  # pyright: ignore[reportArgumentType]
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(100)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate(_OVERFLOW) == []
            if (scheme, width) != ("light", 390):
                found = Axe().run(page).response["violations"]
                serious = [one for one in found if one["impact"] in ("serious", "critical")]
                assert [(one["id"], one["nodes"][0]["html"][:160]) for one in serious] == []


def test_a_quiz_is_blind_and_ends_with_the_agreement(case: "Page") -> None:
    page = case
    page.click("text=Set unreadable aside")
    if count(page, "#look"):
        name_all(page, "7")
    look_through(page)
    page.click("text=Sign off")
    page.click("dialog >> text=Sign off >> nth=-1")
    page.wait_for_selector("text=Signed by Ada")
    page.goto(page.url.split("#")[0] + "#/")
    page.fill("[name=size]", "3")
    page.click("text=Start")
    for left in (3, 2, 1):
        page.wait_for_selector(f"text={3 - left} of 3 answered")
        assert page.locator("text=Signed:").count() == 0
        page.keyboard.press("7")
    page.wait_for_selector("text=agree with the signed class")


def test_a_token_is_asked_for_once(serve: Callable[..., Any], visit: Callable[..., "Page"]) -> None:
    url, said, process = serve("--new-token")
    found = re.search(r"only now: (\S+)", said)
    assert found, said
    page = visit(url)
    page.fill("[name=token]", "wrong")
    page.click("dialog >> text=Continue")
    page.wait_for_selector("text=not the station's token")
    page.fill("[name=token]", found[1])
    page.click("dialog >> text=Continue")
    page.wait_for_selector("text=Who reads?")
    page.reload()
    page.wait_for_selector("text=Who reads?")
    assert page.locator("dialog").count() == 0
    process.send_signal(signal.SIGINT)
