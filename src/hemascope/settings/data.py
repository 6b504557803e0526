"""Which data a command reads, and how."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from hemascope.core.errors import UsageError
from hemascope.core.image_spec import Geometries
from hemascope.settings.base import Settings, explain, load_toml

Colors = Literal["none", "image", "group"]


class DataSettings(Settings):
    """What `data` and the inputs beside it say; a run keeps it, so that it knows its data.

    `sources` are names of data sets, .npz files, tables, folders or archives, which are joined.
    `collection` is the key of a published collection whose class names and image recipe the
    data follows; `classes` are class names alone, in the order of the labels. `map` says which
    class a class of the data is ("" leaves its images out). `image_size`, `crop` are for
    photographs that are not images of a network's size already; `frame` is "auto" to crop each
    laboratory's photographs to the cell, "cell" around it, "whole" or the path of a frame file, and
    `geometries` the sizes of photographs whose share is known. `group_from` is a regular expression
    that finds in a file's name what an image comes from, such as a patient, or "folder" for the
    folder inside the class folder. `skip_bad` leaves damaged files out, `skip_rare` classes too
    small to split.
    """

    sources: tuple[str, ...] = ("bloodmnist",)
    collection: str = ""
    classes: tuple[str, ...] = ()
    map: dict[str, str] = Field(default_factory=dict)
    image_size: int | None = Field(default=None, ge=8, le=1024)
    crop: float | None = Field(default=None, gt=0, le=1)
    frame: str = ""
    geometries: Geometries = ()
    group_from: str = ""
    skip_bad: bool = False
    skip_rare: bool = False

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        if self.collection and self.classes:
            raise ValueError("give either collection or classes, which both name the labels")
        if len(set(self.classes)) < len(self.classes) or "" in self.classes:
            raise ValueError("classes holds a name twice, or an empty one")
        return self

    @property
    def title(self) -> str:
        """The sources, for sentences about them."""
        return " and ".join(self.sources)


class ClassMap(Settings):
    """Which class of the data is which class wanted: the file that `map` names.

    `classes` has a line for each class that is called otherwise; "" leaves its images out. `colors`
    is for `hemascope transfer`: how colors are fitted to those the network was trained on (each
    "image" by itself, or all as a "group").
    """

    classes: dict[str, str] = Field(min_length=1)
    colors: Colors = "none"


def read_map(path: Path) -> dict[str, str]:
    """The classes of a map file.

    Raises:
        UsageError: If it is not one.
    """
    return load_toml(path, ClassMap).classes


def read_colors(path: Path) -> Colors:
    """How a map file fits colors; see `read_map`."""
    return load_toml(path, ClassMap).colors


def read_classes(text: str) -> tuple[str, ...]:
    """Class names from a list a,b,c or from a file with one name a line.

    Raises:
        UsageError: If a file is not text.
    """
    path = Path(text)
    if "," in text or not path.is_file():
        return tuple(name.strip() for name in text.split(","))
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path} as text ({error}).", field="classes") from error
    return tuple(line.strip() for line in lines if line.strip())


def chosen_data(changes: Mapping[str, object], own: DataSettings | None = None) -> DataSettings:
    """What a command reads: what was given, and for the rest what a run knows of its own data.

    Raises:
        UsageError: If a value does not fit.
    """
    base = own or DataSettings()
    if "sources" in changes:  # other data, for images made in the same way
        kept = {"image_size", "frame", "geometries"}
        base = DataSettings.model_validate(base.model_dump(include=kept))
    try:
        return DataSettings.model_validate({**base.model_dump(), **changes})
    except ValidationError as error:
        raise UsageError(f"the options of the data: {explain(error, DataSettings)}") from error
