"""What every table of settings is: frozen, validated, read from TOML, explained in one sentence."""

import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hemascope.core.errors import UsageError, did_you_mean, shortened


class Settings(BaseModel):
    """Base of every settings table: frozen, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def load_toml(path: Path, kind: type[S]) -> S:
    """The settings of some kind in a TOML file; see `load_config`."""
    try:
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is not a file; give a TOML file of settings.")
        text = path.read_text("utf-8-sig")  # some editors write a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"cannot read {path}: {reason}; give a TOML file of settings.") from error
    return parse_toml(text, kind, origin=str(path))


def parse_toml(text: str, kind: type[S], *, origin: str) -> S:
    """The settings of some kind in TOML text; `origin` names it in errors."""
    try:
        return kind.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{origin} is not valid TOML: {error}.") from error
    except ValidationError as error:
        raise UsageError(f"{origin}: {explain(error, kind)}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{origin} cannot be read as TOML ({error}); correct it.") from error


def dotted(tables: Mapping[str, object], leaves: Collection[str] = ()) -> dict[str, object]:
    """What tables in tables hold by dotted names, such as `training.learning_rate`.

    Tables with a key that is among `leaves` are left whole.
    """
    found: dict[str, object] = {}
    for name, value in tables.items():
        if isinstance(value, dict) and value.keys().isdisjoint(leaves):
            found |= {f"{name}.{inner}": own for inner, own in dotted(value, leaves).items()}
        else:
            found[name] = value
    return found


def explain(error: ValidationError, settings: type[BaseModel]) -> str:
    """One sentence on one thing wrong: the field, what is wrong with it, what fits.

    A misspelt field comes first: it is why another one seems to be missing.
    """
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    field = ".".join(str(part) for part in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        table: Any = settings
        for part in first["loc"][:-1]:  # into a table; the tables in a list are not looked into
            table = table.model_fields[part].annotation if hasattr(table, "model_fields") else None
        known = getattr(table, "model_fields", None)
        hint = did_you_mean(str(first["loc"][-1]), known) if known else "remove it."
        return f"unknown field '{field}'; {hint}"
    if first["type"] == "missing":
        return f"field '{field}' is missing; add it."
    given = "" if isinstance(first["input"], dict) else f" (got {shortened(first['input'])})"
    message = first["msg"].removeprefix("Value error, ")
    return f"field '{field}'{given}: {message[0].lower()}{message[1:]}."
