"""What labels mean, and the names of the splits."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property


class Split(StrEnum):
    """The three parts of a data set, by MedMNIST's names."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


_SPELLINGS = {
    **dict.fromkeys(("train", "training"), Split.TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "dev"), Split.VAL),
    **dict.fromkeys(("test", "testing"), Split.TEST),
}


def split_named(name: str) -> Split | None:
    """The split that a folder or a column calls so, in any usual spelling; None if it is none."""
    return _SPELLINGS.get(re.sub(r"[\s_-]*(set|data)$", "", name.strip().casefold()))


@dataclass(frozen=True)
class ClassSet:
    """The classes a label can mean: label `i` is `names[i]`.

    Attributes:
        names: One name per class.
        aliases: Other names of some classes, such as an abbreviation, and the class each means.
    """

    names: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.names)

    def index(self, name: str) -> int | None:
        """The label that a name means, by itself or by an alias; None if it means none.

        Case, plural and the separators `_`, `-` and space make no difference.
        """
        if name in self.names:
            return self.names.index(name)
        return self._by_spelling.get(_spelling(name))

    @cached_property
    def _by_spelling(self) -> dict[str, int]:
        known = {_spelling(alias): self.names.index(name) for alias, name in self.aliases.items()}
        return known | {_spelling(name): label for label, name in enumerate(self.names)}

    def repeated(self) -> tuple[str, ...]:
        """Names that mean a class that an earlier one means already, in another spelling too."""
        of_alias = {_spelling(alias): _spelling(name) for alias, name in self.aliases.items()}
        meant = [of_alias.get(_spelling(name), _spelling(name)) for name in self.names]
        return tuple(name for i, name in enumerate(self.names) if meant[i] in meant[:i])

    def only(self, labels: set[int]) -> "ClassSet":
        """The same with some of the classes, in their order."""
        names = tuple(name for label, name in enumerate(self.names) if label in labels)
        return ClassSet(names, {a: name for a, name in self.aliases.items() if name in names})


class Role(StrEnum):
    """What a class is in a differential count."""

    WHITE = "white"  # one of the cells that percentages are of
    PER_100_WHITE = "per_100_white"  # counted beside them, as erythroblasts are
    NOT_COUNTED = "not_counted"  # such as platelets and artifacts


_WHITE = """basophil, eosinophil, immature granulocyte, lymphocyte, monocyte, neutrophil, blast,
promyelocyte, myelocyte, metamyelocyte, band neutrophil, band, segmented neutrophil, plasma cell,
reactive lymphocyte, atypical lymphocyte, variant lymphocyte, large granular lymphocyte,
prolymphocyte, hairy cell, promonocyte, monoblast, myeloblast, lymphoblast"""
_PER_100_WHITE = "erythroblast, normoblast, nucleated red blood cell, nrbc"
_NOT_COUNTED = """platelet, giant platelet, platelet clump, smudge cell, smudge, artifact, artefact,
debris, red blood cell, erythrocyte, megakaryocyte"""
_ROLES = {
    name.strip(): role
    for names, role in (
        (_WHITE, Role.WHITE),
        (_PER_100_WHITE, Role.PER_100_WHITE),
        (_NOT_COUNTED, Role.NOT_COUNTED),
    )
    for name in names.split(",")
}


def role_of(name: str) -> Role | None:
    """What a class of that name is in a differential count; None for an unknown name."""
    known = ClassSet(tuple(_ROLES))
    label = known.index(name)
    return None if label is None else _ROLES[known.names[label]]


def _spelling(name: str) -> str:
    text = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name).strip().casefold())
    return text[:-1] if len(text) > 3 and text.endswith("s") and not text.endswith("ss") else text
