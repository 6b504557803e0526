"""Phrases that native readers stumble over, kept out of everything that is read."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What to avoid, as regular expressions, and what to say instead.
PHRASES = {
    r"(?<!here )\bis no (?!longer)[a-z]+\b": "is not a",
    r"stands? there twice": "is duplicated",
    r"\bgo(es|ing)? on\b(?! (showing|the))": "resume, continue",
    r"worse pictures": "corruptions",
    r"\bsurest\b|\bleast sure\b|\b(how|as|so) sure\b": "confident, confidence",
    r"\b(her|his|its|the|of) hits\b": "correct predictions",
    r"\b(left|is|are|set apart) (to|for) an expert\b": "flagged for review; abstains",
    r"worth nothing|\bis worth[,.:]?$": "meaningless; reliability",
    r"asked in turn": "timed in turn",
    r"(corrected )?after Holm\b": "Holm-corrected",
    r"nobody knows": "unknown",
    r"\bif (that|it) is at hand\b|\bfile at hand\b": "cached, available",
    r"[Tt]o make this again": "how to reproduce",
    r"[Ww]hom to tell": "what it is for",
    r"\bthat show little\b": "low-quality",
    r"\bas (exactly )?right as (it is )?(sure|confident)\b": "perfectly calibrated",
    r"\bfor want of\b": "out of, lacking",
    r"\bways? to doubt\b|\bwhich doubt\b": "uncertainty",
}
READ = [
    *(ROOT / "src").rglob("*.py"),
    *(ROOT / "src").rglob("*.jinja"),
    *(ROOT / "src").rglob("*.toml"),
    *ROOT.glob("*.md"),
    *(path for path in (ROOT / "docs").rglob("*.md") if path.name != "log.md"),
    *(ROOT / "docs").rglob("*.ipynb"),
    *(ROOT / "benchmarks").rglob("*.py"),
]


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrases_to_avoid_stand_nowhere(phrase: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()} -> {PHRASES[phrase]}"
        for path in READ
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(phrase, line)
    ]
    assert not found, "\n".join(found)
