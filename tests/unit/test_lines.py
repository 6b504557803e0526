"""What `make lines` counts."""

import runpy
from pathlib import Path

LINES = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "lines.py"))

SOURCE = '''"""A module
of two lines."""

import os  # counts


class A:
    """Only documented."""

    # not this one
    text = """two
lines"""

    def f(
        self,
    ) -> None:
        """Nothing."""
        "a text that is not a docstring"
'''


def test_lines_of_code_leave_out_docstrings_comments_and_blank_lines() -> None:
    assert LINES["lines_of_code"](SOURCE) == 8
    assert LINES["lines_of_code"]("") == 0


def test_rooms_add_up(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.py").write_text(SOURCE)
    (tmp_path / "data" / "b.py").write_text("x = 1\n")
    (tmp_path / "cli.py").write_text("x = 1\n\n# y\n")
    assert LINES["lines_by_room"](tmp_path) == {"data": 9, "cli": 1}
