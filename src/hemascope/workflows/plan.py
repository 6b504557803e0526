"""Which settings a command trains with; decided, and refused, before anything heavy is loaded."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from hemascope.config import Device, Precision, RunSettings, load_config, load_preset
from hemascope.errors import UsageError
from hemascope.models import check_model

_MOST_EPOCHS_SCALE = 1000
STUDY_PRESETS = ("paper-cnn", "paper-cnn-curve", "paper-mlnn")


def choose_settings(
    preset: str | None,
    config: Path | None,
    *,
    epochs: int | None = None,
    seed: int | None = None,
    device: Device | None = None,
    precision: Precision | None = None,
) -> RunSettings:
    """A preset's or a file's settings, with what the command line says in their place.

    Raises:
        UsageError: If neither or both are named, or one of them is wrong.
    """
    if preset is not None and config is None:
        settings = load_preset(preset)
    elif config is not None and preset is None:
        settings = load_config(config)
    else:
        raise UsageError("give one of --preset NAME and --config FILE.")
    check_model(settings.model)
    training = settings.training
    if epochs is not None:
        training = training.model_copy(update={"epochs": epochs})
    changes = {"seed": seed, "device": device, "precision": precision}
    given = {name: value for name, value in changes.items() if value is not None}
    return settings.model_copy(update={"training": training, **given})


def scaled_presets(
    names: Sequence[str],
    *,
    epochs_scale: float = 1.0,
    device: Device | None = None,
    precision: Precision | None = None,
) -> list[RunSettings]:
    """Several presets with the same changes.

    Raises:
        UsageError: If `epochs_scale` is not in (0, 1000].
    """
    if not 0 < epochs_scale <= _MOST_EPOCHS_SCALE:
        raise UsageError(
            f"--epochs-scale {epochs_scale}: give a number above 0 and up to "
            f"{_MOST_EPOCHS_SCALE}, such as 0.2."
        )
    settings = [choose_settings(name, None, device=device, precision=precision) for name in names]
    return [s.model_copy(update={"training": s.training.scaled(epochs_scale)}) for s in settings]


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds in a list such as "0,1,2".

    Raises:
        UsageError: If one is not a whole number from 0 to 2**32 - 1, or stands there twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) < 2**32 for part in parts):
        raise UsageError(
            f"--seeds {text!r}: give whole numbers with commas between, such as 0,1,2."
        )
    seeds = tuple(int(part) for part in parts)
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"--seeds {text!r}: a seed stands there twice; each run needs its own.")
    return seeds


def next_free(folder: Path) -> Path:
    """`folder` if it does not exist, else the first of folder-2, folder-3, ... that does not."""
    names = (folder if i == 1 else folder.with_name(f"{folder.name}-{i}") for i in count(1))
    return next(name for name in names if not name.exists())
