"""Terminals and pipes as they come: narrow, without color, without UTF-8, closed early."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemascope.data.rendered import render

PREDICT = (sys.executable, "-m", "hemascope", "predict", "--model", "hemanet")
COLOR = re.compile(rb"\x1b\[[0-9;]*(?:3[0-7]|9[0-7]|38;)[0-9;]*m")


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cells") / "cells.npz"
    np.savez(path, images=np.tile(render(np.arange(8), seed=0), (200, 1, 1, 1)))
    return path


def test_a_pipe_that_closes_early_ends_the_command_without_a_word(cells: Path) -> None:
    command = [*PREDICT, cells, "--out", "-", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        assert running.stdout.readline().startswith(b"path,predicted_class,")
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 1


def test_a_locale_without_utf_8_gets_ascii_and_every_row(tmp_path: Path) -> None:
    folder = tmp_path / "zellen-ü"
    folder.mkdir()
    [cell] = render(np.array([0]), seed=0)
    Image.fromarray(cell).save(folder / "zelle-é.png")
    (folder / "empty.png").touch()
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
    for more in ((), ("--out", "-")):
        command, place = [*PREDICT, folder.name, *more], os.environ | plain
        done = subprocess.run(command, cwd=tmp_path, env=place, capture_output=True, check=False)
        assert done.returncode == 1, done.stderr
        assert (done.stdout + done.stderr).isascii()
        assert b"Traceback" not in done.stderr
        assert b"zelle-" in done.stdout
        assert b"1 could not be read" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_a_narrow_terminal_without_color_gets_neither_width_nor_color(cells: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    more = {"NO_COLOR": "1", "COLUMNS": "40", "TERM": "xterm-256color"}
    command, place = [*PREDICT, cells.name], cells.parent
    running = subprocess.Popen(
        command, cwd=place, env=os.environ | more, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # how Linux says that the other end is closed
        pass
    finally:
        os.close(ours)
    assert running.wait() == 0
    assert b"1,600 classified" in shown
    assert not COLOR.search(shown)
    plain = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode()
    rows = [line for line in re.split(r"[\r\n]+", plain) if line.startswith(("cells.npz", "  "))]
    assert rows
    assert max(map(len, rows)) <= 40
