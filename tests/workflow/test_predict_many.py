"""`predict` over archives: Parquet, shards and URLs, and by many processes that may be killed."""

import importlib.util
import io
import os
import signal
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from conftest import Outcome
from hemascope.data import inputs
from hemascope.data.rendered import render
from hemascope.data.walk import PassedOver

pytestmark = pytest.mark.filterwarnings("ignore:::ray")  # Ray's own
Run = Callable[..., Outcome]
Rows = list[dict[str, Any]]


def encoded(count: int, *, seed: int = 3, size: int = 80) -> list[bytes]:
    contents: list[bytes] = []
    for image in render(np.arange(count) % 8, seed=seed, image_size=size):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        contents.append(file.getvalue())
    return contents


def save_folder(folder: Path, contents: list[bytes]) -> Path:
    folder.mkdir()
    for i, content in enumerate(contents):
        (folder / f"{i:04}.png").write_bytes(content)
    return folder


def save_shard(path: Path, contents: list[bytes]) -> Path:
    """As WebDataset lays shards out: a picture and a class for each key."""
    with tarfile.open(path, "w") as archive:
        for i, content in enumerate(contents):
            for suffix, data in (("png", content), ("cls", b"3")):
                member = tarfile.TarInfo(f"{i:06}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return path


def save_parquet(path: Path, column: str, values: list[Any], *, group: int = 10) -> Path:
    table = pa.table({"key": list(range(len(values))), column: values})
    pq.write_table(table, path, row_group_size=group, compression="none", use_dictionary=False)
    return path


def damage_group(path: Path, group: int) -> None:
    column = pq.ParquetFile(path).metadata.row_group(group).column(1)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset : column.data_page_offset + 30] = b"\xff" * 30
    path.write_bytes(content)


def rows_of(path: Path) -> Rows:
    """Rows in the order of parts, rounded."""
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def expect_same(rows: Rows, expected: Rows) -> None:
    assert [row["path"] for row in rows] == [row["path"] for row in expected]
    for row, other in zip(rows, expected, strict=True):
        for name, value in other.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, abs=1e-6), (row["path"], name)
            else:
                assert row[name] == value, (row["path"], name)


@pytest.fixture(scope="module")
def ray_of_two() -> Iterator[None]:
    """Ray with two workers and little memory, which the commands find."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    how: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    for _ in range(3):  # Ray gives a machine half a minute to start, and a busy one takes longer
        with suppress(Exception):
            ray.init(num_cpus=2, object_store_memory=100_000_000, **how)
            break
    assert ray.is_initialized()
    yield
    ray.shutdown()


@pytest.fixture
def sources(tmp_path: Path) -> list[str]:
    """Pictures in every form, with a damaged row group, a damaged file and a shard cut short."""
    contents = encoded(30)
    folder = save_folder(tmp_path / "cells", contents)
    shard = save_shard(tmp_path / "shard.tar", contents[:20])
    cut = tmp_path / "cut.tar"
    cut.write_bytes(shard.read_bytes()[:30_000])
    whole = save_parquet(tmp_path / "a.parquet", "image", contents)
    damaged = save_parquet(tmp_path / "b.parquet", "bytes", contents)
    damage_group(damaged, 1)
    (tmp_path / "c.parquet").write_bytes(b"PAR1 and no more")
    paths = [f"cells/{i:04}.png" for i in range(12)]
    named = save_parquet(tmp_path / "d.parquet", "path", [*paths, "gone.png", None])
    others = (shard, cut, whole, damaged, tmp_path / "c.parquet", named)
    return [str(folder), *map(str, others), f"file://{folder}", f"file://{tmp_path}/sh*.tar"]


@pytest.mark.usefixtures("ray_of_two")
def test_many_processes_answer_as_one_and_resume(
    sources: list[str], tmp_path: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "PART_SIZE", 10)
    plain = hemascope("predict", *sources, "--out", tmp_path / "plain.parquet")
    assert plain.code == 1, plain.err
    expected = rows_of(tmp_path / "plain.parquet")
    out = tmp_path / "out"
    command = ("predict", *sources, "--engine", "ray", "--workers", "2", "--out")
    outcome = hemascope(*command, out)
    assert outcome.code == 1, outcome.err
    expect_same(rows_of(out), expected)
    framing = "Framed by the cells: all of each image is used"
    assert framing in plain.err
    assert framing in outcome.err
    for line in plain.err.splitlines():
        said = line.partition(" (00")[0].partition(" Kept in ")[0]
        # which files are named depends on who was first, and where the frame is kept on the engine
        assert said in outcome.err or line.startswith("Answers"), line
    errors = [(row["path"], row["error"]) for row in expected if row["error"]]
    damaged = [path for path, error in errors if "row group 1 is damaged" in error]
    assert damaged == [f"{tmp_path}/b.parquet!/{row}" for row in range(10, 20)]
    assert "not a whole Parquet file" in dict(errors)[f"{tmp_path}/c.parquet"]
    assert "not a whole tar archive" in dict(errors)[f"{tmp_path}/cut.tar"]
    assert dict(errors)[f"{tmp_path}/gone.png"] == "No such file or directory"
    assert dict(errors)[f"{tmp_path}/d.parquet!/13"] == "no image in this row"
    # As other processes read it, and as it is resumed.
    assert pq.read_table(out).num_rows == len(expected)
    files = sorted(out.glob("part-*.parquet"))
    written = {file: file.stat().st_mtime_ns for file in files}
    files[2].unlink()
    resumed = hemascope(*command, out, "--resume")
    assert f"Resuming after {len(files) - 1} of {len(files)} parts." in resumed.err
    [classified] = [line for line in plain.err.splitlines() if "classified" in line]
    assert classified in resumed.err
    expect_same(rows_of(out), expected)
    assert [f for f in files if f.stat().st_mtime_ns != written[f]] == [files[2]]
    again = hemascope("predict", sources[0], "--frame", out / "_frame.json", "--out", "-")
    assert again.code == 0, again.err
    for options, said in (
        ((), "holds answers: add --resume to continue, or --overwrite to begin again."),
        (("--resume", "--views", "8"), "was begun with another model, other settings"),
    ):
        refused = hemascope(*command, out, *options)
        assert refused.code == 2
        assert said in refused.err
    fewer = hemascope("predict", sources[0], *command[-5:], out, "--overwrite")
    assert fewer.code == 0, fewer.err
    alone = tmp_path / "alone.parquet"
    assert hemascope("predict", sources[0], "--out", alone).code == 0
    expect_same(rows_of(out), rows_of(alone))


class Killer(threading.Thread):
    """Kills the process that writes the second part, and may say that it was not the first."""

    def __init__(self, out: Path, *, before: int = 0) -> None:
        super().__init__(daemon=True)
        self.out, self.before, self.killed = out, before, 0

    def run(self) -> None:
        end = time.monotonic() + 200
        while not self.killed and time.monotonic() < end:
            is_there = any(self.out.glob(".part-000001*"))
            for link in Path("/proc").glob("[0-9]*/fd/*") if is_there else ():
                with suppress(OSError):
                    if str(link.readlink()).startswith(f"{self.out}/.part-000001"):
                        self.killed = int(link.parts[2])
                        os.kill(self.killed, signal.SIGKILL)
                        break
            time.sleep(0.01)
        if self.before:
            (self.out / "_tried-000001").write_text("x" * (self.before + 1))


@pytest.mark.usefixtures("ray_of_two")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")
def test_one_row_for_each_picture_after_killed_workers(tmp_path: Path, hemascope: Run) -> None:
    contents = encoded(40)
    small = save_parquet(tmp_path / "small.parquet", "image", contents)
    large = save_parquet(tmp_path / "large.parquet", "image", contents * 60)
    out = tmp_path / "out"
    command = ("predict", small, large, "--engine", "ray", "--workers", "1", "--out", out)
    killer = Killer(out, before=3)  # the fourth time is one too many
    killer.start()
    outcome = hemascope(*command)
    killer.join()
    assert killer.killed
    assert outcome.code == 2, outcome.err
    assert f"--workers: it is 1; 4 workers were killed at {large}, most likely" in outcome.err
    assert "lower it. Finished parts are kept: add --resume." in outcome.err
    killer = Killer(out)
    killer.start()
    outcome = hemascope(*command, "--resume")
    killer.join()
    assert killer.killed
    assert outcome.code == 0, outcome.err
    assert "2,440 classified" in outcome.err
    paths = [row["path"] for row in rows_of(out)]
    assert paths == [f"{small}!/{i}" for i in range(40)] + [f"{large}!/{i}" for i in range(2400)]
    assert {path.name for path in out.iterdir()} == {
        *("_frame.json", "_plan.jsonl", "part-000000.parquet", "part-000001.parquet")
    }


def test_urls_give_the_answers_of_files(tmp_path: Path, hemascope: Run) -> None:
    contents = encoded(6)
    folder = save_folder(tmp_path / "cells", contents)
    shard = save_shard(tmp_path / "shard.tar", contents)
    table = save_parquet(
        tmp_path / "t.parquet", "image", [{"bytes": c, "path": ""} for c in contents]
    )
    memory = fsspec.filesystem("memory")
    for path in (*folder.iterdir(), shard, table):
        memory.pipe(f"/h/{path.relative_to(tmp_path)}", path.read_bytes())
    memory.pipe("/h/cells/notes.txt", b"not a cell")
    urls = ["memory://h/cells", "memory://h/*.tar", "memory://h/t.parquet"]
    answers: list[Rows] = []
    for name, paths in (("files", (folder, shard, table)), ("urls", urls)):
        outcome = hemascope("predict", *paths, "--out", tmp_path / f"{name}.parquet")
        assert outcome.code == 0, outcome.err
        answers.append(rows_of(tmp_path / f"{name}.parquet"))
    assert "files that are not images" in outcome.err.replace("file(s)", "files")
    for row, other in zip(*answers, strict=True):
        assert {**row, "path": ""} == {**other, "path": ""}
        assert row["path"].replace(f"{tmp_path}/", "") == other["path"].partition("/h/")[2]
    memory.rm("/h", recursive=True)


def test_parts_hold_every_picture_once(sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 7, 10, 4096):
        monkeypatch.setattr(inputs, "PART_SIZE", size)
        found = list(inputs.parts(sources, PassedOver()))
        paths = [item.path for part in found for item in part.items(PassedOver())]
        assert paths == [item.path for item in inputs.items(sources, PassedOver())]
        for part in found:
            if part.num_images is not None:
                assert len(list(part.items(PassedOver()))) == part.num_images


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-", "--engine", "ray", "--out", "x"), 2, "--engine: it cannot hand standard input"),
        (("{cells}", "--engine", "ray"), 2, "--out: --engine ray needs a folder"),
        (("{cells}", "--workers", "2"), 2, "--workers: it goes with --engine ray"),
        (("{cells}", "--engine", "ray", "--sort", "confidence", "--out", "x"), 2, "--sort"),
        (("{cells}", "--engine", "ray", "--explain", "y", "--out", "x"), 2, "--explain"),
        (("{cells}", "--engine", "ray", "--out", "{cells}/0000.png"), 2, "is a file"),
        (
            ("{cells}", "--engine", "ray", "--out", "{cells}"),
            2,
            "exists and holds other things; choose",
        ),
        (("memory://nothing/here",), 2, "there is no file or folder memory://nothing/here"),
        (("nope://a/b",), 2, "nope://a/b cannot be reached"),
        (("file:///a.npz",), 2, "an .npz file is read on this machine only"),
        (("https://127.0.0.1:9/a.tar",), (2, 3), "https://127.0.0.1:9/a.tar cannot be reached"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    arguments: tuple[str, ...],
    code: Any,
    said: str,
    tmp_path: Path,
    hemascope: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = save_folder(tmp_path / "cells", encoded(2))
    outcome = hemascope("predict", *(one.replace("{cells}", str(cells)) for one in arguments))
    assert outcome.code in (code if isinstance(code, tuple) else (code,))
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells"]


@pytest.mark.parametrize(
    ("missing", "extra", "arguments"),
    [
        ("ray", "scale", ("cells", "--engine", "ray", "--out", "x")),
        ("fsspec", "scale", ("s3://bucket/cells",)),
        ("pyarrow", "parquet", ("a.parquet",)),
    ],
)
def test_what_is_not_installed_is_named(
    missing: str,
    extra: str,
    arguments: tuple[str, ...],
    tmp_path: Path,
    hemascope: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    save_folder(tmp_path / "cells", encoded(1))
    (tmp_path / "a.parquet").touch()
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == missing else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    monkeypatch.setattr(inputs, "find_spec", without)
    monkeypatch.setitem(sys.modules, missing, None)
    outcome = hemascope("predict", *arguments)
    assert outcome.code == 2
    assert f"pip install 'hemascope[{extra}]'" in outcome.err
    assert len(outcome.err.splitlines()) == 1
