import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from hemascope.core.errors import RESEARCH_USE_ONLY, OutputError
from hemascope.store import files


def test_a_failed_write_keeps_the_old_file_and_leaves_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    files.write_text(path, "old")

    def full(_fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_written_files_can_be_read_by_others(tmp_path: Path) -> None:
    files.write_text(tmp_path / "report.html", "x")
    assert (tmp_path / "report.html").stat().st_mode & 0o444 == 0o444


def test_out_may_be_new_or_empty(tmp_path: Path) -> None:
    files.check_out(tmp_path / "new", overwrite=False)
    files.check_out(tmp_path, overwrite=False)


def test_out_with_content_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "fingerprint.json").write_text("{}")
    with pytest.raises(OutputError, match="`overwrite`"):
        files.make_out(tmp_path, overwrite=False)
    assert (tmp_path / "fingerprint.json").exists()


def test_overwrite_deletes_only_folders_of_ours(tmp_path: Path) -> None:
    mine, like_ours, ours = (tmp_path / name for name in ("mine", "like_ours", "ours"))
    mark = {"notice": RESEARCH_USE_ONLY}
    for folder, name, content in (
        (mine, "thesis.tex", "x"),
        (like_ours, "fingerprint.json", "{}"),
        (ours, "fingerprint.json", json.dumps(mark)),
    ):
        folder.mkdir()
        (folder / name).write_text(content)
    for folder in (mine, like_ours):
        with pytest.raises(OutputError, match="does not look like"):
            files.make_out(folder, overwrite=True)
        assert len(list(folder.iterdir())) == 1
    link = tmp_path / "link"
    link.symlink_to(ours)
    with pytest.raises(OutputError, match="does not look like"):
        files.make_out(link, overwrite=True)
    files.make_out(ours, overwrite=True)
    assert list(ours.iterdir()) == []


def test_overwrite_never_deletes_what_the_command_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "fingerprint.json").write_text("{}")
    with pytest.raises(OutputError, match="which this command needs"):
        files.check_out(run, overwrite=True, inputs=[run / "model"])
    monkeypatch.chdir(run)
    with pytest.raises(OutputError, match="which this command needs"):
        files.check_out(Path(), overwrite=True)


def test_out_below_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(OutputError, match="is not a folder"):
        files.check_out(tmp_path / "x" / "run", overwrite=False)


def test_out_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with pytest.raises(OutputError, match="is a file"):
        files.check_out(tmp_path / "x", overwrite=True)


HOLD = """
import sys, warnings
from pathlib import Path
if sys.argv[2] == "without":  # as where the system has neither
    sys.modules["fcntl"] = sys.modules["resource"] = None
    warnings.simplefilter("ignore")
from hemascope.core.errors import OutputError
from hemascope.store.files import claimed
try:
    with claimed(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except OutputError as error:
    print(error, flush=True)
"""


def _hold(folder: Path, fcntl: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), fcntl],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("fcntl", ["with", "without"])
def test_a_folder_has_one_writer_and_a_killed_one_holds_nothing(tmp_path: Path, fcntl: str) -> None:
    folder = tmp_path / "new" / "run"
    with _hold(folder, fcntl) as first:
        assert _said(first) == "held"
        files.check_out(folder, overwrite=False)  # the lock is not content
        with _hold(folder, fcntl) as second:
            assert "another process is writing into" in _said(second)
        first.kill()
        first.wait()
    with _hold(folder, fcntl) as third:
        assert _said(third) == "held"
        third.communicate()
    assert list(folder.iterdir()) == []


def test_a_failed_claim_leaves_no_empty_folder_and_a_filled_one_stays(tmp_path: Path) -> None:
    def fail(folder: Path, *names: str) -> None:
        with files.claimed(folder), files.claimed(folder):
            for name in names:
                (folder / name).write_text("x")
            raise KeyError

    for name in ("empty", "filled"):
        with pytest.raises(KeyError):
            fail(tmp_path / name, *(["x"] if name == "filled" else []))
    assert not (tmp_path / "empty").exists()
    assert [path.name for path in (tmp_path / "filled").iterdir()] == ["x"]


def test_a_folder_that_cannot_be_claimed_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot write"), files.claimed(tmp_path / "file"):
        pass


@pytest.fixture
def ctrl_c() -> Generator[None]:
    """Ctrl-C raises, also where a shell started the tests in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_waits_for_files_that_belong_together() -> None:
    done: list[str] = []

    def two_files() -> None:
        with files.uninterrupted():
            done.append("first")
            os.kill(os.getpid(), signal.SIGINT)
            done.append("second")

    with pytest.raises(KeyboardInterrupt):
        two_files()
    assert done == ["first", "second"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
