"""Tables in the formats of papers and programs."""

import csv
import io
import json

from hemascope.report.formats import format_tables

ROWS = [["network", "accuracy (%)", "p"], ["a_b, 8 views", "98.1 ± 0.1", "\N{MINUS SIGN}0.2"]]


def test_csv_and_json_hold_every_cell() -> None:
    assert list(csv.reader(io.StringIO(format_tables([ROWS], "csv")))) == ROWS
    [table] = json.loads(format_tables([ROWS], "json"))
    assert [table["header"], *table["rows"]] == ROWS
    assert len(json.loads(format_tables([ROWS, ROWS], "json"))) == 2


def test_latex_is_escaped_and_ruled() -> None:
    lines = format_tables([ROWS], "latex").splitlines()
    assert lines == [
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"network & accuracy (\%) & p \\",
        r"\midrule",
        r"a\_b, 8 views & 98.1 $\pm$ 0.1 & $-$0.2 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_markdown_is_as_everywhere() -> None:
    assert format_tables([ROWS], "md").splitlines()[1] == "| --- | ---: | ---: |"
