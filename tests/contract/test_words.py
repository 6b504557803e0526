"""Phrases that native readers stumble over, kept out of everything that is read."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What to avoid, as regular expressions, and what to say instead.
PHRASES = {
    r"(?<!here )\bis no (?!longer)[a-z]+\b": "is not a",
    r"stands? there twice": "is duplicated",
    r"\bgo(es|ing)? on\b(?! (showing|the))": "resume, continue",
    r"worse pictures": "corruptions",
    r"\bsurest\b|\bsurer\b|\bleast sure\b|\b([Hh]ow|as|so) sure\b": "confident, confidence",
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
    r"\bways? to doubt\b|\bwhich doubt\b|\bnetwork's doubt\b": "uncertainty",
    r": for an expert\b": "flagged for review",
    r"\bbegin again\b": "start over",
    r"\b[Ll]ikeliest\b|\blikelier\b": "most probable",
    r"\bwant of\b": "out of",
    r"\bwho was taken for whom\b": "confusion matrix",
    r"something else than\b": "is not",
    r"\blie in one another\b": "contains the other",
}
# What is read is a photograph, what a network sees an image, what is drawn a figure; names in code
# (`pictures`, `BadPictureError`, `num_pictures`) stay as they are.
PICTURE = re.compile(r"(?<![\w.`/{])[Pp]ictures?\b(?![\w(:.`])")
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


def _prose(path: Path) -> list[tuple[int, str]]:
    """The lines of a document, or those of a program's texts."""
    text = path.read_text("utf-8")
    if path.suffix != ".py":
        return list(enumerate(text.splitlines(), 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [
        (token.start[0] + i, re.sub(r"\{[^{}]*\}", "", line))
        for token in tokens
        if token.type == tokenize.STRING and len(token.string.split()) > 1
        for i, line in enumerate(token.string.splitlines())
    ]


def test_nothing_that_is_read_is_called_a_picture() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in READ
        if "decisions" not in path.parts and path.name != "CHANGELOG.md"
        for number, line in _prose(path)
        if PICTURE.search(line)
    ]
    assert not found, "\n".join(found)
