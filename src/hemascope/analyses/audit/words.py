"""What `hemascope audit` found, as one page with the images side by side, and in a few lines."""

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.report.page import environment

MOST_SHOWN = 120  # images of a section; audit.json names them all


def render_audit(content: Mapping[str, Any], image_of: Callable[[str], NDArray[np.uint8]]) -> str:
    """The page: needs no other file.

    Args:
        content: What `audit.json` holds.
        image_of: The pixels (H, H, 3) of an image by its id.
    """
    pages = environment(autoescape=True)
    pages.filters["pixels"] = lambda image_id: _data_address(image_of(str(image_id)))  # pyright: ignore[reportArgumentType] - jinja's stubs
    return pages.get_template("audit.html.jinja").render(
        a=content, notice=RESEARCH_USE_ONLY, most=MOST_SHOWN, lines=summary(content)
    )


def summary(content: Mapping[str, Any]) -> list[str]:
    """What was found, a sentence for each kind."""
    exact, near = content["exact_duplicate_groups"], content["near_duplicate_groups"]
    issues = content["label_issue_candidates"]
    accuracy = content["cross_validated_accuracy"]
    return [
        f"{_count(exact, 'group')} of images that are the same pixel for pixel.",
        f"{_count(near, 'group')} of near-duplicates: the same cell, nearly the same pixels.",
        f"{_count(content['label_conflicts'], 'group')} of duplicates with different labels.",
        _across(content),
        content["group_statement"],
        "Labels were not judged: there are too few images or classes."
        if accuracy is None
        else f"{_count(issues, 'image')} with a likely label error, by a cross-validated small "
        f"network ({100 * accuracy:.1f} % accuracy).",
        ", ".join(
            f"{_count(content[key], 'image')} {word}"
            for key, word in (("blank", "blank"), ("blurred", "blurred"), ("off_size", "off size"))
        )
        + ".",
        content["balance_statement"],
    ]


def audit_text(content: Mapping[str, Any]) -> str:
    """The same for the terminal."""
    data = content["data"]
    title = f"{data['title']}: {sum(data['counts'].values()):,} images"
    return "\n".join([title, *(f"- {line}" for line in summary(content)), RESEARCH_USE_ONLY])


def _across(content: Mapping[str, Any]) -> str:
    if len(content["data"]["counts"]) == 1:
        return "The data is not split, so no image can be in two splits."
    groups = content["cross_split_groups"]
    return f"{_count(groups, 'group')} of the same or nearly the same images in different splits."


def _count(things: Any, word: str) -> str:
    return f"{len(things):,} {word}{'' if len(things) == 1 else 's'}"


def _data_address(image: NDArray[np.uint8]) -> str:
    content = io.BytesIO()
    Image.fromarray(image).save(content, format="PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode("ascii")
