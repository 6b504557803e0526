"""Which settings a command trains with; decided, and refused, before anything heavy is loaded."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

from pydantic import ValidationError

from hemascope.core.errors import UsageError
from hemascope.models import check_model
from hemascope.settings.base import explain
from hemascope.settings.compute import Device, PrecisionChoice
from hemascope.settings.run import RunSettings, load_config, load_preset
from hemascope.store.model_folder import find_artifact

_MOST_EPOCHS_SCALE = 1000
_MOST_DIGITS = 10
MOST_IMAGES = 65_536  # in a call
DEFAULT_PRESET = "hemanet"
STUDY_PRESETS = ("paper-cnn", "paper-cnn-curve", "paper-mlnn")


def choose_settings(
    preset: str | None, config: Path | None, changes: Mapping[str, object] | None = None
) -> RunSettings:
    """A preset's or a file's settings, with what the command line says in their place.

    Args:
        preset: Name of a preset; where there is no file, `hemanet` by default.
        config: A TOML file instead.
        changes: New values by field, such as `training.loss`; None leaves a field as it is.

    Raises:
        UsageError: If both are named, or a value is wrong.
    """
    if preset is not None and config is not None:
        raise UsageError("give either `preset` or `config`, not both.")
    settings = load_preset(preset or DEFAULT_PRESET) if config is None else load_config(config)
    settings = changed(settings, changes or {})
    check_model(settings.model)
    for path in (settings.start, settings.teacher):
        if path:
            find_artifact(Path(path))
    return settings


def changed(
    settings: RunSettings, changes: Mapping[str, object], *, origin: str = "the options given"
) -> RunSettings:
    """The settings with some fields replaced; see `choose_settings`.

    Args:
        settings: The settings.
        changes: New values by field.
        origin: What they come from, for errors.

    Raises:
        UsageError: If a value does not fit.
    """
    values = settings.model_dump()
    for field, value in changes.items():
        *tables, last = field.split(".")
        table = values
        for name in tables:
            table[name] = table[name] if isinstance(table.get(name), dict) else {}
            table = table[name]
        if value is not None:
            table[last] = value
    try:
        return RunSettings.model_validate(values)
    except ValidationError as error:
        raise UsageError(f"{origin}: {explain(error, RunSettings)}") from error


def scaled_presets(
    names: Sequence[str],
    epochs_scale: float = 1.0,
    device: Device | None = None,
    precision: PrecisionChoice | None = None,
) -> list[RunSettings]:
    """Several presets with the same changes.

    Raises:
        UsageError: If `epochs_scale` is not in (0, 1000].
    """
    if not 0 < epochs_scale <= _MOST_EPOCHS_SCALE:
        raise UsageError(
            f"it is {epochs_scale}; give a number above 0 and up to "
            f"{_MOST_EPOCHS_SCALE}, such as 0.2.",
            field="epochs_scale",
        )
    changes = {"device": device, "precision": precision}
    settings = [choose_settings(name, None, changes) for name in names]
    return [s.model_copy(update={"training": s.training.scaled(epochs_scale)}) for s in settings]


def parse_seeds(text: str) -> tuple[int, ...]:
    """The seeds in a list such as "0,1,2"; see `parse_counts`."""
    return parse_counts("seeds", text, least=0, most=2**32 - 1)


def check_share(field: str, value: float) -> None:
    """Refuses what is not a share strictly between nothing and everything.

    Raises:
        UsageError: If it is not.
    """
    if not 0 < value < 1:
        raise UsageError(f"it is {value}; give a number between 0 and 1.", field=field)


def parse_shares(field: str, text: str) -> tuple[float, ...]:
    """The shares in a list such as "0.95,0.99".

    Raises:
        UsageError: If one is not a number between 0 and 1.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"it is {text!r}; give numbers with commas between, such as 0.95,0.99.", field=field
        ) from error
    for share in shares:
        check_share(field, share)
    return shares


def parse_counts(
    field: str, text: str, *, least: int = 1, most: int, total: int | None = None
) -> tuple[int, ...]:
    """The integers in a list such as "1,32".

    Args:
        field: What the list is given to.
        text: The list.
        least: The smallest number allowed.
        most: The largest number allowed.
        total: What "all" stands for, if that is a number as well.

    Raises:
        UsageError: If one is not an integer from `least` to `most`, or is duplicated.
    """
    parts = [part.strip() for part in text.split(",")]
    numbers = [_whole(part) for part in parts if part != "all" or total is None]
    if not all(least <= number <= most for number in numbers):
        or_all = "" if total is None else "'all' or "
        raise UsageError(
            f"it is {text!r}; give {or_all}integers from {least} to {most:,} with commas between.",
            field=field,
        )
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"it is {text!r}: duplicate value; give each once.", field=field)
    if total is not None and "all" in parts:
        numbers.append(total)
    return tuple(dict.fromkeys(numbers))  # "all" may be one of the others


def _whole(text: str) -> int:
    """The number that digits mean; -1 where there is anything else, or too many."""
    is_whole = text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS
    return int(text) if is_whole else -1


def next_free(folder: Path) -> Path:
    """`folder` if it does not exist, else the first of folder-2, folder-3, ... that does not."""
    names = (folder if i == 1 else folder.with_name(f"{folder.name}-{i}") for i in count(1))
    return next(name for name in names if not name.exists())
