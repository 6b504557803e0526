"""The names of a run's files stand in one room."""

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "hemascope"
NAMES = re.compile(
    r"""["'/](results\.(json|txt)|history\.csv|config\.toml|fingerprint\.json|training\.log)"""
    r"""|["'/]report\.(html|md)["']|predictions-\{|/ "(model|checkpoint|comparison\.json)\""""
)


def test_the_names_of_a_run_s_files_stand_in_the_store_alone() -> None:
    found = {
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*.py")
        if "store" not in path.relative_to(SOURCE).parts
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if NAMES.search(line)
    }
    # `hemascope compare` has a comparison.json of its own.
    assert {place.partition(":")[0] for place in found} <= {"analyses/compare/run.py"}


def test_what_follows_predictions_is_typed() -> None:
    uses = [
        f"{path.relative_to(SOURCE)}:{number}"
        for path in SOURCE.rglob("*.py")
        if path.parent.name != "review"  # which speaks JSON
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        for _ in re.findall(r"(?:dict|Mapping)\[str, Any\]", line)
    ]
    assert len(uses) <= 13, uses  # the options of networks, presets and sweeps, theirs alone
