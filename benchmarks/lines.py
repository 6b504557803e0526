"""How many lines of code the package has, for each room of `src/hemascope` and in all.

Command: python benchmarks/lines.py [FOLDER]

A line counts if it holds code: blank lines, lines with only a comment, and docstrings do not.
"""

import argparse
import ast
import io
import tokenize
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "hemascope"
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def lines_of_code(source: str) -> int:
    """The lines of a Python module that hold code."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            code -= set(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return len(code)


def lines_by_room(package: Path) -> Counter[str]:
    """The lines of code in each folder or module at the top of a package."""
    rooms: Counter[str] = Counter()
    for path in package.rglob("*.py"):
        room = path.relative_to(package).parts[0].removesuffix(".py")
        rooms[room] += lines_of_code(path.read_text("utf-8"))
    return rooms


def main() -> None:
    """Prints the rooms, the largest first, and the total."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path, nargs="?", default=PACKAGE)
    rooms = lines_by_room(parser.parse_args().package)
    for room, count in rooms.most_common():
        print(f"{room:<12} {count:>6,}")
    print(f"{'total':<12} {rooms.total():>6,}")


if __name__ == "__main__":
    main()
