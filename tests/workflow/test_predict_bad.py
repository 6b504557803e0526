"""Hostile pictures and interrupted runs: a bad picture has its row, and the rest goes on."""

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome
from hemascope.core.answers import Answer
from hemascope.core.errors import DataError
from hemascope.data.inputs import items
from hemascope.data.pictures import BadPictureError, Picture, read_picture
from hemascope.data.rendered import render
from hemascope.data.walk import PassedOver
from hemascope.inference.onnx_engine import OnnxEngine
from hemascope.inference.predictor import Predictor
from hemascope.report.answers import Outcome as Answers
from hemascope.store.answers import Journal, columns_of, row_of
from hemascope.store.model_folder import find_artifact

Run = Callable[..., Outcome]


def _png(number: int = 0, side: int = 32) -> bytes:
    memory = io.BytesIO()
    cell = render(np.array([number % 8]), seed=number, image_size=side)[0]
    Image.fromarray(cell).save(memory, "PNG")
    return memory.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.png").write_bytes(_png(i))
    return folder


def _rows(out: Path) -> list[dict[str, str]]:
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def _refused(outcome: Outcome, part: str) -> None:
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    assert part in outcome.err.splitlines()[-1]


def test_what_is_no_picture_has_its_row_and_the_rest_goes_on(
    hemascope: Run, pictures: Path, tmp_path: Path
) -> None:
    os.mkfifo(pictures / "fifo.png")
    for name, target in (("null", "/dev/zero"), ("loop", "."), ("none", "nowhere")):
        (pictures / f"{name}.png").symlink_to(target)
    (pictures / "empty.jpg").touch()
    (pictures / "text.jpg").write_text("hello")
    Image.new("I;16", (9, 9)).save(pictures / "sixteen.png")
    Image.new("RGB", (1, 10_000)).save(pictures / "thin.png")
    Image.new("CMYK", (9, 9)).save(pictures / "cmyk.jpg")
    (pictures / "new\nline, 'and' \"quotes\".png").write_bytes(_png())
    Path(os.fsdecode(bytes(pictures) + b"/\xff.png")).write_bytes(_png())
    outcome = hemascope("predict", pictures, "--out", tmp_path / "out.csv")
    assert outcome.code == 1, outcome.err
    rows = _rows(tmp_path / "out.csv")
    failed = {Path(row["path"]).stem for row in rows if row["error"]}
    assert failed == {"fifo", "null", "loop", "none", "empty", "text"}
    assert len(rows) == 3 + 6 + 5


def test_a_damaged_member_of_a_zip_hides_no_other(tmp_path: Path) -> None:
    path = tmp_path / "cells.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.png", _png(i))
    content = bytearray(path.read_bytes())
    content[content.find(b"1.png") + 100] ^= 1
    path.write_bytes(content)
    first, second, third = items([str(path)], PassedOver())
    with pytest.raises(BadPictureError, match="CRC"):
        second.read()
    assert first.read().image.size == third.read().image.size == (32, 32)


def test_a_list_may_name_anything() -> None:
    [item] = items(["-"], PassedOver(), io.BytesIO(b"a\0b.png\n"))
    with pytest.raises(BadPictureError, match="zero byte"):
        item.read()


def test_folders_may_be_deeper_than_calls(tmp_path: Path) -> None:
    folder = tmp_path
    depth = sys.getrecursionlimit() + 50
    here = os.open(folder, os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        Path("x.png").write_bytes(_png())
        os.fchdir(here)
        [found] = items(["."], PassedOver())
        assert found.read().image.size == (32, 32)
    finally:
        os.fchdir(here)
        subprocess.run(["rm", "-r", "d"], cwd=folder, check=True)  # deeper than Python's own goes
        os.chdir(Path(__file__).parents[2])
        os.close(here)


def test_a_folder_that_cannot_be_read_has_its_row(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pictures / "1sub").mkdir()
    scandir = os.scandir

    def refusing(path: str) -> Any:
        if path.endswith("1sub"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr("hemascope.data.walk.os.scandir", refusing)
    found = list(items([str(pictures)], PassedOver()))
    assert [Path(item.path).name for item in found] == ["0.png", "1.png", "1sub", "2.png"]
    with pytest.raises(BadPictureError, match="Permission denied"):
        found[2].read()


def test_a_jpeg_of_endless_scans_is_refused_at_once() -> None:
    memory = io.BytesIO()
    Image.new("RGB", (64, 64)).save(memory, "JPEG", progressive=True)
    content = memory.getvalue()
    assert read_picture(content).image.size == (64, 64)
    last = content[content.rfind(b"\xff\xda") : -2]
    with pytest.raises(BadPictureError, match="too many"):
        read_picture(content[:-2] + 500 * last + b"\xff\xd9")


def test_many_large_pictures_are_not_held_together(
    hemascope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(4):
        Image.new("RGB", (1200, 1000)).save(tmp_path / f"{i}.png")
    held: list[weakref.ref[Image.Image]] = []
    alive: list[int] = []

    def watched(path: Path) -> Picture:
        alive.append(sum(one() is not None for one in held))
        picture = read_picture(path)
        held.append(weakref.ref(picture.image))
        return picture

    monkeypatch.setattr("hemascope.data.inputs.read_picture", watched)
    assert hemascope("predict", tmp_path, "--out", tmp_path / "o.jsonl").code == 0
    assert len(alive) == 9  # the first alone for its size, four to frame them, four to answer
    assert max(alive) <= 1  # the one before, until this one is there


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--coverage", "2"), "--coverage: it is 2"),
        (("--crop", "0"), "--crop: it is 0"),
        (("--crop", "nan"), "--crop: it is nan"),
        (("--views", "3"), "--views"),
        (("--model", "nonsense"), "holds no trained model"),
        (("--out", "/nowhere/o.csv"), "there is no folder"),
        (("--out", "o.txt"), "must end in"),
        (("--resume",), "--resume"),
    ],
)
def test_what_cannot_be_carried_out(
    hemascope: Run, pictures: Path, options: tuple[str, ...], part: str
) -> None:
    _refused(hemascope("predict", pictures, *options), part)


def test_out_may_be_no_folder(hemascope: Run, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "o.csv").mkdir()
    outcome = hemascope("predict", pictures, "--out", tmp_path / "o.csv", "--overwrite")
    _refused(outcome, "is a folder")
    assert {path.name for path in tmp_path.iterdir()} == {"o.csv", "pictures"}


def test_maps_do_not_go_among_the_pictures(hemascope: Run, pictures: Path) -> None:
    _refused(hemascope("predict", pictures, "--explain", pictures / "maps"), "lies inside")


def test_a_full_disk_leaves_nothing_where_nothing_was_answered(
    hemascope: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hemascope.core.errors import OutputError

    def full(self: Journal, rows: Any) -> None:
        del self, rows
        raise OutputError("cannot write: No space left on device.")

    monkeypatch.setattr(Journal, "add", full)
    _refused(hemascope("predict", pictures, "--out", tmp_path / "o.csv"), "No space left")
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_ctrl_c_says_how_to_go_on_and_going_on_gives_the_same_file(
    hemascope: Run, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemascope.inference.stream._BATCH", 2)
    given = (*[pictures / "0.png"] * 3, pictures, pictures / "2.png")  # some of them twice
    whole, out = tmp_path / "whole.csv", tmp_path / "o.csv"
    assert hemascope("predict", *given, "--out", whole).code == 0
    add = Journal.add

    def interrupted(self: Journal, rows: Any) -> None:
        add(self, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", interrupted)
        outcome = hemascope("predict", *given, "--out", out, "--threads", "1")
    assert outcome.code == 130
    assert "--resume" in outcome.err
    assert not out.exists()
    assert hemascope("predict", *given, "--out", out, "--resume").code == 0
    assert out.read_bytes() == whole.read_bytes()
    assert len(_rows(out)) == 7
    assert {path.name for path in tmp_path.iterdir()} == {
        *("o.csv", "o.csv.frame.json", "whole.csv", "whole.csv.frame.json", "pictures")
    }


def test_a_killed_run_can_be_gone_on_with(
    hemascope: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo, out, whole = tmp_path / "list", tmp_path / "o.csv", tmp_path / "whole.csv"
    names: list[str] = []
    for i in range(150):
        names.append(str(tmp_path / f"{i}.png"))
        (tmp_path / f"{i}.png").write_bytes(_png(i))
    os.mkfifo(fifo)
    program = "from hemascope.__main__ import main; main()"
    command = [sys.executable, "-c", program, "predict", "-", "--out", str(out), "--threads", "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as running:
        assert running.stdin is not None
        running.stdin.write("\n".join([*names, *names]) + "\n")  # and then it waits for more
        running.stdin.flush()
        while not any(path.stat().st_size for path in tmp_path.glob(".o.csv.*.part")):
            assert running.poll() is None
        running.send_signal(signal.SIGKILL)
    listed = [*names, *names]
    assert not out.exists()
    with monkeypatch.context() as given:
        again = io.TextIOWrapper(io.BytesIO("\n".join(listed).encode()))
        given.setattr("sys.stdin", again)
        assert hemascope("predict", "-", "--out", out, "--resume").code == 0
    frame = tmp_path / "o.csv.frame.json"  # decided by the first 200, all there were of the list
    assert hemascope("predict", *listed, "--out", whole, "--frame", frame).code == 0
    assert out.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob(".o.csv.*"))


def test_a_graph_that_fits_its_checksum_and_not_the_model(tmp_path: Path, pictures: Path) -> None:
    model = Path(shutil.copytree(find_artifact(Path("hemanet")), tmp_path / "model"))
    info = json.loads((model / "artifact.json").read_text())
    (model / "artifact.json").write_text(json.dumps({**info, "class_names": ["a", "b"]}))
    with pytest.raises(DataError, match="does not give a number for each"):
        Predictor(model).predict(pictures / "0.png")
    for graph in info["onnx"]:
        digest = hashlib.sha256(b"garbage").hexdigest()
        graph.update(sha256=digest, file=f"{graph['precision']}-{digest[:12]}.onnx")
        (model / graph["file"]).write_bytes(b"garbage")
    (model / "artifact.json").write_text(json.dumps(info))
    with pytest.raises(DataError, match="cannot be run by ONNX Runtime"):
        Predictor(model)


def test_a_graph_that_fails_when_it_is_asked() -> None:
    folder = find_artifact(Path("hemanet"))
    [graph] = folder.glob("fp32-*.onnx")
    engine = OnnxEngine(graph.read_bytes(), origin="graph", threads=1)
    with pytest.raises(DataError, match="graph cannot be run"):
        engine.logits(np.zeros((1, 5, 5, 1), dtype=np.uint8))


def test_a_terminal_is_not_controlled_by_names(capsys: pytest.CaptureFixture[str]) -> None:
    answers = Answers(PassedOver())
    answers.add([row_of("a\x1b[2J\n.png", Answer(error="no \x1b[31mpicture"), ())])
    answers.print_table()
    assert "\x1b" not in capsys.readouterr().out


def test_nothing_is_kept_in_the_home_folder(pictures: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "ORT_"))}
    subprocess.run(
        [sys.executable, "-m", "hemascope", "predict", pictures],
        env={**kept, "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        check=True,
    )
    assert list(home.rglob("*")) == []


def test_parquet_takes_any_name_and_any_reason(hemascope: Run, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    bad = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.npz"))  # the reason holds the name as well
    bad.write_bytes(b"no archive")
    out = tmp_path / "o.parquet"
    assert hemascope("predict", bad, "--out", out).code == 1
    [row] = parquet.read_table(out).to_pylist()
    assert "\\udcff.npz" in row["path"]
    assert "not a whole .npz" in row["error"]


def test_what_an_interrupted_version_0_1_left_is_not_resumed(tmp_path: Path) -> None:
    path = tmp_path / ".o.csv.part"
    journal = Journal(path)
    journal.add(
        [row_of("a.png", Answer("b", 0.9, ("b",), abstain=False, probs=(0.1, 0.9)), ("a", "b"))]
    )
    journal.close()
    with closing(Journal(path)) as again:
        assert again.num_done == 1
    row = json.loads(path.read_text())
    assert list(row) == columns_of(("a", "b"))
    del row["note"]
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match="does not hold answers; delete it and start"):
        Journal(path)
