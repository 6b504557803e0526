"""What a model says of a photograph."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What a model says of one photograph, or why it says nothing.

    Attributes:
        predicted_class: The most probable class; "" where there is an error.
        confidence: Its probability, after temperature scaling.
        prediction_set: The classes that may be meant, the most probable first; among photographs
            like those of val, it holds the true class as often as the coverage asked for. It may be
            empty: then no class is usual enough.
        abstain: Whether the photograph is flagged for expert review.
        probs: The probability of each class, in the order of the model's classes.
        error: Why the photograph could not be read; "" if it could.
        note: What was converted, guessed or is unfit about the photograph; "" where nothing is.
        warning: Why the photograph is set apart whatever its class: "unlike training", "no cell",
            "several cells", "out of focus" or "unusual color"; "" where it is not.
        distance: How far it is from the training images; above 1 it is set apart. None where the
            model cannot tell.
    """

    predicted_class: str = ""
    confidence: float = 0.0
    prediction_set: tuple[str, ...] = ()
    abstain: bool = True
    probs: tuple[float, ...] = ()
    error: str = ""
    note: str = ""
    warning: str = ""
    distance: float | None = None
