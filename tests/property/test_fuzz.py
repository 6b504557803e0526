"""A small share of `benchmarks/fuzz.py`: damaged input is refused with the documented error."""

import subprocess
import sys
from pathlib import Path

import pytest

from hemascope.core.errors import shortened

FUZZ = Path(__file__).parents[2] / "benchmarks" / "fuzz.py"


@pytest.mark.parametrize("reader", ["pictures", "npz", "archives", "artifact", "graphs", "config"])
def test_mutated_input_is_accepted_or_refused(reader: str) -> None:
    command = [sys.executable, FUZZ, "--reader", reader, "--inputs", "200", "--seed", "7"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "findings 0" in ended.stdout


def test_what_python_cannot_write_out_is_named_all_the_same() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert shortened(nested) == "a very large list"
    assert shortened(int("f" * 5000, 16)) == "a very large int"
