"""What is sent to break the station, and disks and databases that give way under it."""

import io
import os
import random
import resource
import shutil
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Generator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import text

from hemascope.inference.predictor import Predictor
from hemascope.review.retention import delete_strays
from stations import Desk, cell_files, change, desk_at, png

_EVIL = (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", b"MZ\x90\0")
_NAMES = (
    *("../../etc/passwd", "..\\..\\windows\\x", "/etc/cron.d/x", "a/../../b", "C:\\x", "\\\\h\\s"),
    *("nul\0.png", "x\r\nSet-Cookie: a=b", "\u202egnp.exe", "." * 300, "%2e%2e%2fx", "~/.ssh/x"),
    *("CON", "aux.png", "-rf", "$(reboot).png", "`id`.png", "'; DROP TABLE cell; --.png"),
)


def hostile(rng: random.Random) -> list[tuple[str, bytes, bool]]:
    """Two hundred names and contents, and whether the whole request is to be refused."""
    [good] = cell_files(1, size=48).values()
    jpeg, gif = (png(Image.open(io.BytesIO(good)), kind) for kind in ("JPEG", "GIF"))
    made: list[tuple[str, bytes, bool]] = []
    for i in range(40):  # cut short, or with a byte changed where it matters
        whole = (good, jpeg, gif)[i % 3]
        made.append((f"cut-{i}.png", whole[: rng.randrange(20, len(whole) // 2)], False))
    for i, name in enumerate(_NAMES):  # names, on what is no picture and in archives
        made.append((name, b"text of no picture", False))
        made.append((f"names-{i}.zip", zipped({name: b"x", f"{name}.png": b"no picture"}), False))
    for i in range(24):  # markup and programs that call themselves pictures, in other cases
        suffix = ("svg", "html", "png", "jpg", "PNG", "svgz", "xml", "htm")[i % 8]
        content = _EVIL[0] if i % 2 else b"<!doctype html><script>alert(document.cookie)</script>"
        made.append((f"page-{i}.{suffix}", content * (1 + i), False))
    for i in range(12):
        made.append((f"program-{i}.png", _EVIL[1] + rng.randbytes(200), False))
    for i in range(20):  # sizes that are not there: a bomb once it is unpacked
        wide, high = rng.choice([(50_000, 50_000), (2**31 - 1, 1), (0, 5), (30_000, 2000)])
        made.append((f"size-{i}.png", png_of(wide, high), False))
    for i in range(12):
        many = {f"{j}.png": bytes(2_000_000) for j in range(3)}
        made.append((f"bomb-{i}.zip", zipped(many) + bytes(i), True))
    for i in range(12):
        made.append((f"empty-{i}.zip", zipped({f"{j}.txt": b"" for j in range(1500)}), True))
    for i in range(12):  # half an archive, or one with another's directory
        whole = zipped({"a.png": good, "b.png": good})
        made.append((f"half-{i}.zip", whole[: len(whole) - 5 - 7 * i], True))
    for i in range(12):  # archives in archives
        inner = zipped({"a.png": good})
        for _ in range(1 + i):
            inner = zipped({"inner.zip": inner})
        made.append((f"nested-{i}.zip", inner, False))
    for i in range(10):  # two things at once: a picture's beginning, and a page or an archive
        content = good[: 60 + i] + _EVIL[0] + zipped({"x.html": _EVIL[0]})
        made.append((f"both-{i}.png", content, False))
    for i in range(10):
        made.append((f"noise-{i}.jpg", b"\xff\xd8\xff" + rng.randbytes(3000), False))
    return made


def zipped(files: dict[str, bytes]) -> bytes:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name.replace("\0", "_"))
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return memory.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that says to be of this size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")


def test_two_hundred_hostile_uploads_are_refused_or_unreadable(
    local_desk: Desk, tmp_path: Path
) -> None:
    uploads = hostile(random.Random(5))  # noqa: S311 - damage
    assert len(uploads) >= 200
    case = local_desk.case()
    before = {path for path in tmp_path.rglob("*") if "images" not in path.parts}
    params = {"reader": local_desk.reader("Ann")}
    for name, content, is_refused in uploads:
        answer = local_desk.ask(
            "POST", f"/cases/{case}/files", params=params, files=[("file", (name, content))]
        )
        assert answer.status_code < 500, name
        if is_refused:
            assert answer.status_code in (413, 422), name
            assert answer.json()["field"] == "file"
            continue
        if answer.status_code >= 400:  # the form itself
            continue
        said = answer.json()
        assert said["passed_over"] or said["added"] or said["known"], name
        assert all(cell["error"] and cell["image"] is None for cell in said["cells"]), name
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "images" in path.parts]
    after = {path for path in tmp_path.rglob("*") if "images" not in path.parts}
    assert {path.name for path in after - before} <= {"station.db-wal", "station.db-shm"}
    assert not (tmp_path.parent / "passwd").exists()
    cells = local_desk.get(f"/cases/{case}/cells", limit=500)["items"]
    for cell in cells:
        assert cell["name"].isprintable()
        assert ".." not in cell["name"].split("/")
    local_desk.analyze(case)
    again = local_desk.upload(case, cell_files(1))
    assert again["added"] == 1
    local_desk.analyze(case)


def test_what_is_stored_of_a_page_in_a_picture_is_a_picture(local_desk: Desk) -> None:
    [good] = cell_files(1).values()
    case = local_desk.case()
    local_desk.upload(case, {"page.html": good + b"<script>alert(1)</script>"})
    [cell] = local_desk.cells(case)
    answer = local_desk.client.get(f"http://localhost{cell['image']}")
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"script" not in answer.content


@contextmanager
def no_room(num_bytes: int) -> Generator[None]:
    """Files of this process cannot grow beyond this, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_without_room_for_pictures_is_said_and_recovers(desk: Desk) -> None:
    case = desk.filled(2)
    before = desk.cells(case)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    large = {"large.png": png(noise)}
    with no_room(100_000):
        refused = desk.upload(case, large, status=507)
    assert "room" in refused["detail"]
    assert desk.cells(case) == before
    assert desk.upload(case, large)["added"] == 1
    desk.analyze(case)


def test_a_full_database_is_said_and_recovers(packaged: Predictor, tmp_path: Path) -> None:
    with desk_at(tmp_path / "station", packaged) as desk:
        case = desk.filled(4)
        cells = desk.cells(case)
        engine = desk.station.database.engine

        def most(pages: int) -> None:
            engine.dispose()  # the limit is each connection's own
            with engine.connect() as connection:
                connection.execute(text(f"PRAGMA max_page_count = {pages}"))

        engine.dispose()
        most(1)  # no more than it has
        comment = "a long comment " * 130
        changes = [change(cell, "monocyte", comment=comment) for cell in cells]
        assert "full" in desk.correct(case, changes, status=507)["detail"]
        assert desk.cells(case) == cells
        most(2**30)
        assert desk.correct(case, changes)["version"]
        assert {cell["class"] for cell in desk.cells(case)} == {"monocyte"}


@contextmanager
def small_disk(folder: Path, num_bytes: int) -> Generator[Path]:
    """A file system of its own that holds so much; skips where none may be mounted."""
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root can mount a small file system: no disk is really filled")
    size = ["-o", f"size={num_bytes}", "tmpfs", str(folder)]
    made = subprocess.run([mount, "-t", "tmpfs", *size], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full_is_said_and_recovers(
    packaged: Predictor, tmp_path: Path
) -> None:
    with (
        small_disk(tmp_path / "disk", 4_000_000) as disk,
        desk_at(disk / "station", packaged) as desk,
    ):
        case = desk.filled(4)
        before = desk.cells(case)
        noise = np.random.default_rng(0).integers(0, 256, (40, 250, 250, 3), dtype=np.uint8)
        many = {f"large-{i}.png": png(one) for i, one in enumerate(noise)}  # 7.5 MB
        assert "room" in desk.upload(case, many, status=507)["detail"]
        assert desk.cells(case) == before

        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1000)):
                pass
        assert shutil.disk_usage(disk).free == 0
        comment = "a long comment " * 130
        changes = [change(cell, "monocyte", comment=comment) for cell in before]
        said = [desk.correct(case, changes, status=None) for _ in range(3)]
        assert "full" in said[-1]["detail"]
        assert desk.cells(case) == before  # what is there can be looked at

        filler.unlink()
        delete_strays(desk.station)  # pictures of the upload that failed, as every hour
        assert desk.correct(case, changes)["version"]
        some = dict(list(many.items())[:3])
        assert desk.upload(case, some)["added"] == 3
        desk.analyze(case)
        desk.identify(case)
        desk.act(case, "sign")
        for cell in desk.cells(case):
            digest = Path(cell["image"]).stem
            assert sha256(desk.station.images.path(digest).read_bytes()).hexdigest() == digest


def test_a_locked_database_is_said_and_recovers(
    packaged: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemascope.review.database._BUSY_MS", 50)
    with desk_at(tmp_path / "station", packaged) as desk:
        case = desk.filled(2)
        cell = desk.cells(case)[0]
        other = "basophil" if cell["class"] != "basophil" else "monocyte"
        with desk_at(tmp_path / "station", packaged) as second:
            with second.station.database.write() as session:
                session.execute(text("UPDATE cases SET version = version"))
                refused = desk.correct(case, [change(cell, other)], status=503)
                assert "nothing was changed" in refused["detail"]
                assert desk.cells(case)[0] == cell  # reading goes on
            assert desk.correct(case, [change(cell, other)])["cells"][0]["class"] == other
