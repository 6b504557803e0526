"""What is known of published collections, once: classes, recipe, md5s, source, license, limits.

The table was written from MedMNIST's own metadata by `benchmarks/collections_table.py`, so that
nothing here imports MedMNIST's library, which needs torch.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources

from pydantic import Field

from hemascope.core.classes import ClassSet
from hemascope.core.errors import DataError, did_you_mean
from hemascope.core.image_spec import ImageSpec
from hemascope.core.images import Kind
from hemascope.settings.base import Settings


class Collection(Settings):
    """One published data set.

    Attributes:
        title: Its name.
        classes: The names of its labels, in order.
        aliases: Other names of some of them.
        md5s: Of its files, by image size.
        rebuilt_md5s: Of files with the same images in a split of our own, by image size.
        url: Where the file of the smallest size is.
        license: As its publisher states it.
        image: How photographs became its images of the smallest size.
        source: Where the images are from, for the cards.
        reference: Who gave the labels.
        preparation: What was done to the images before they were published.
        limits: What they cannot show.
    """

    title: str
    classes: tuple[str, ...] = Field(min_length=1)
    aliases: dict[str, str] = Field(default_factory=dict)
    md5s: dict[int, str]
    rebuilt_md5s: dict[int, str] = Field(default_factory=dict)
    url: str
    license: str
    image: ImageSpec = ImageSpec()
    source: str
    reference: str = "As given by the publisher; one label each."
    preparation: str = "As published."
    limits: str = "Nothing is known of the patients behind the images."

    @property
    def class_set(self) -> ClassSet:
        """What its labels mean."""
        return ClassSet(self.classes, self.aliases)

    def spec(self, size: int) -> ImageSpec:
        """How a photograph becomes one of its images of a size; the JPEG step is of 28 pixels."""
        changes = {"size": size} if size == min(self.md5s) else {"size": size, "jpeg_quality": 0}
        return self.image.model_copy(update=changes)

    def title_of(self, kind: Kind) -> str:
        """What pages call data of this collection."""
        if kind == "official":
            return f"{self.title}, official split (MedMNIST v2)"
        return f"{self.title} pixels, rebuilt split (our own split, not the official one)"


@cache
def collections() -> Mapping[str, Collection]:
    """Every collection in the table, by key."""
    text = (resources.files("hemascope.data") / "collections.json").read_text("utf-8")
    return {key: Collection.model_validate(row) for key, row in json.loads(text).items()}


def collection(key: str) -> Collection:
    """One collection.

    Raises:
        DataError: If there is none of this key.
    """
    if key not in collections():
        hint = did_you_mean(key, collections())
        raise DataError(f"no collection is called '{key}'; {hint}", field="collection")
    return collections()[key]


def recognized(md5: str) -> tuple[str, Kind] | None:
    """The collection whose file has this md5, and whose split it is; None if it is unknown."""
    for key, known in collections().items():
        if md5 in known.md5s.values():
            return key, "official"
        if md5 in known.rebuilt_md5s.values():
            return key, "rebuilt"
    return None


BLOOD_CELLS = collection("bloodmnist").class_set


def with_aliases(names: tuple[str, ...]) -> ClassSet:
    """Classes with the usual other names of those that are BloodMNIST's."""
    aliases = BLOOD_CELLS.aliases.items()
    return ClassSet(names, {alias: name for alias, name in aliases if name in names})
