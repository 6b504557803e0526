"""What `corruptions` says of figures that are known."""

from dataclasses import replace

from hemascope.analyses.corruptions.words import (
    Accuracies,
    Corruptions,
    Levels,
    RelativeError,
    corruptions_text,
)

CONTENT = Corruptions(
    data="cells",
    split="test",
    num_images=1000,
    num_views=1,
    image_size=28,
    warnings=["Beware."],
    corruptions={
        "blur": Levels("sigma", (1, 2, 3, 4, 5)),
        "noise": Levels("sd", (0.1, 2, 3, 4, 5)),
    },
    networks={
        "ours": Accuracies(
            0.99, {"blur": [0.9, 0.8, 0.7, 0.6, 0.5], "noise": [1, 1, 1, 1, 1]}, 0.85
        )
    },
    against=None,
    relative_error=None,
)


def test_every_corruption_has_its_mean_and_its_ends() -> None:
    lines = corruptions_text(CONTENT).splitlines()
    assert "1,000 images, 1 view of each" in lines[0]
    assert "| as they are |  | 99.00 |" in lines
    assert "| blur | sigma: 1, 2, 3, 4, 5 | 70.00 (90.0 to 50.0) |" in lines
    assert "| mean |  | 85.00 |" in lines
    assert lines[-1] == "Beware."
    assert "Relative error" not in lines[0]


def test_a_relative_error_has_a_column_and_a_dash_where_it_is_not_defined() -> None:
    relative = RelativeError({"blur": 0.5, "noise": None}, 0.5)
    lines = corruptions_text(
        replace(CONTENT, against="theirs", relative_error=relative)
    ).splitlines()
    assert "Relative error: over that of theirs." in lines[0]
    assert "| accuracy, % | severities 1 to 5 | ours | error, relative |" in lines
    assert "| blur | sigma: 1, 2, 3, 4, 5 | 70.00 (90.0 to 50.0) | 0.50 |" in lines
    assert "| noise | sd: 0.1, 2, 3, 4, 5 | 100.00 (100.0 to 100.0) | - |" in lines
    assert "| mean |  | 85.00 | 0.50 |" in lines
