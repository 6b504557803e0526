"""Tables in the formats that papers and programs take."""

import json
from collections.abc import Sequence
from typing import Literal

from hemascope.report.text import markdown_table
from hemascope.store.files import csv_text

TableFormat = Literal["md", "csv", "latex", "json"]
Rows = Sequence[Sequence[str]]

_LATEX = {sign: f"\\{sign}" for sign in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "\N{MINUS SIGN}": "$-$",
}


def format_tables(tables: Sequence[Rows], how: TableFormat) -> str:
    """Tables, each as its header and its rows, one after another."""
    if how == "json":
        found = [{"header": rows[0], "rows": rows[1:]} for rows in tables]
        return json.dumps(found, indent=2, ensure_ascii=False)
    writers = {"md": markdown_table, "csv": csv_text, "latex": _latex}
    return "\n\n".join(writers[how](rows).rstrip("\n") for rows in tables)


def _latex(rows: Rows) -> str:
    """With the rules of the package booktabs; the first column is text."""
    header, *body = (" & ".join(map(_escaped, row)) + r" \\" for row in rows)
    begin = rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}"
    return "\n".join(
        [begin, r"\toprule", header, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]
    )


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)
