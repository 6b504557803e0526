"""What labels mean, and the names of the splits."""

from dataclasses import dataclass
from enum import StrEnum


class Split(StrEnum):
    """The three parts of a data set, by MedMNIST's names."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


@dataclass(frozen=True)
class ClassSet:
    """The classes a label can mean: label `i` is `names[i]`."""

    names: tuple[str, ...]

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.names)


# MedMNIST's order (medmnist.INFO["bloodmnist"]["label"]), held to it by a contract test.
BLOOD_CELLS = ClassSet(
    (
        "basophil",
        "eosinophil",
        "erythroblast",
        "immature granulocyte",
        "lymphocyte",
        "monocyte",
        "neutrophil",
        "platelet",
    )
)
