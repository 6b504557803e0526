"""The figures published by the study that hemascope reproduces.

Source: Pinto & Silva, University of Coimbra: CNN against MLNN on BloodMNIST (28x28 RGB). All
fractions; the study reports its CNN only, and gives no MLNN results.
"""

from dataclasses import dataclass

CITATION = "Pinto & Silva, University of Coimbra: CNN against MLNN on BloodMNIST"

# What our presets are called beside it, and the collection that its figures are of.
TITLES = {"paper-cnn": "CNN", "paper-cnn-curve": "CNN, default init", "paper-mlnn": "MLNN"}
COLLECTION = "bloodmnist"

NUM_PARAMETERS_CNN = 422_344
NUM_PARAMETERS_MLNN = 2_785_988


@dataclass(frozen=True)
class Published:
    """One published figure: `key` names the same quantity in our results or history."""

    key: str
    label: str
    value: float
    as_percent: bool = False


# Its Table 2: the CNN on the test split after 15 epochs.
TABLE_2 = (
    Published("accuracy", "Accuracy", 0.8652, as_percent=True),
    Published("f1_weighted", "Weighted F1", 0.8664, as_percent=True),
    Published("precision_macro", "Macro precision", 0.8735, as_percent=True),
    Published("recall_macro", "Macro sensitivity", 0.8288, as_percent=True),
    Published("specificity_macro", "Macro specificity", 0.9803, as_percent=True),
    Published("loss", "Test loss", 0.3650),
    Published("num_parameters", "Parameters", NUM_PARAMETERS_CNN),
)

# Its training curves: the first and the last epoch, by our history's column.
CURVE_EPOCHS = 15
NUM_TEST_IMAGES = 3_421
CURVE_FIRST = (
    Published("train_loss", "Train loss", 1.58),
    Published("train_accuracy", "Train accuracy", 0.388, as_percent=True),
    Published("test_accuracy", "Test accuracy", 0.516, as_percent=True),
    Published("test_f1_weighted", "Test weighted F1", 0.447, as_percent=True),
)
CURVE_LAST = (
    Published("train_loss", "Train loss", 0.313),
    Published("train_accuracy", "Train accuracy", 0.883, as_percent=True),
    Published("test_accuracy", "Test accuracy", 0.865, as_percent=True),
    Published("test_f1_weighted", "Test weighted F1", 0.866, as_percent=True),
)

# What the study calls class 3, which MedMNIST calls immature granulocyte (2 is erythroblast).
CLASS_3_IN_THE_STUDY = "Erythroblast"
