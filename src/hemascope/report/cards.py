"""A model card for each network and a data card, under the headings of TRIPOD+AI and CLAIM.

Sources: Collins et al., TRIPOD+AI, BMJ 2024; Tejani et al., CLAIM 2024 update, Radiology: AI 2024.
"""

from collections.abc import Mapping
from typing import Any

from hemascope.core.errors import RESEARCH_USE_ONLY

Card = list[tuple[str, str]]  # heading and text

_PBC = (
    "Single-cell photographs of normal peripheral blood (Acevedo et al., Data in Brief 2020: "
    "Hospital Clinic of Barcelona, 2015 to 2019, CellaVision DM96, May Grünwald-Giemsa stain, "
    "individuals without infection, hematologic or oncologic disease and without drug treatment), "
    "as made into BloodMNIST by MedMNIST v2."
)
_REFERENCE = (
    "The class of each cell as labeled by clinical pathologists of the source; one label each."
)
_NOT_SAID = "The source does not say it."


def model_card(comparison: Mapping[str, Any], name: str) -> Card:
    """The card of one network of a report."""
    data, net = comparison["data"], comparison["networks"][name]
    settings = net["settings"]
    training = settings["training"]
    versions = ", ".join(f"{p} {v}" for p, v in comparison["versions"].items())
    counts = data["counts"]
    return [
        ("Intended use and users", f"Comparing ways to classify cell images. {RESEARCH_USE_ONLY}"),
        ("Data source and eligibility", source(data)),
        ("Reference standard (outcome)", reference(data)),
        (
            "Predictors",
            f"The pixels of one RGB image of {data['image_size']}x{data['image_size']}.",
        ),
        (
            "Data partitions and sample size",
            f"{', '.join(f'{split} {count:,}' for split, count in counts.items())} images. Fitted "
            "to train; val decides what is chosen and what is calibrated; "
            + (
                "test is also drawn after every epoch, as the study does; nothing is chosen by it."
                if training["test_every_epoch"]
                else "test is read once a run."
            ),
        ),
        ("Missing data", "None: every image has all pixels and one label."),
        ("Data preparation", "Pixels / 255; no other preprocessing outside the network."),
        ("Class imbalance", _imbalance(data, training)),
        (
            "Model description",
            f"'{settings['model']['name']}' with the options {settings['model']['options']}; "
            f"{net['results']['num_parameters']['mean']:,.0f} parameters.",
        ),
        (
            "Initialization and training",
            f"{training['init']} initialization{_given(settings)}; {training['optimizer']}, "
            f"learning rate {training['learning_rate']:g}, {training['schedule']} schedule, "
            f"{training['epochs']} epochs, batches of {training['batch_size']}, loss "
            f"{training['loss']}; augmentation {_switched_on(training['augmentation'])}.",
        ),
        ("Selection of the final model", _selection(training)),
        ("Software and hardware", f"{versions}; {comparison['machine']['processor']}."),
        (
            "Model output",
            "A score for each class; its softmax, at the temperature fitted on val, is the "
            "confidence. Prediction sets and a threshold for abstaining are under Trust.",
        ),
        ("Model performance", _performance(comparison, name)),
        (
            "Fairness",
            "Nothing is known of people behind these images, so that performance in groups of "
            "people cannot be given; performance by class is under Efficacy.",
        ),
        (
            "Robustness, external validation, explainability",
            "Not part of this report: hemascope evaluate --corruptions, evaluate --map (another "
            "laboratory's cells) and explain write them from the same run folders.",
        ),
        (
            "Limitations",
            limitations(data),
        ),
        ("Human oversight", "Every answer needs an expert; doubtful ones are to be set apart."),
        ("Availability", f"Code: Apache-2.0. Made by: {comparison['command']}"),
    ]


def data_card(comparison: Mapping[str, Any]) -> Card:
    """The card of the data of a report."""
    data = comparison["data"]
    mean, std = (
        ", ".join(f"{value:.4f}" for value in data[key]) for key in ("channel_mean", "channel_std")
    )
    return [
        ("Title", data["title"]),
        ("Data source and eligibility", source(data)),
        ("Reference standard (outcome)", reference(data)),
        (
            "Data partitions",
            f"{', '.join(f'{split} {count:,}' for split, count in data['counts'].items())}. "
            + _partition(data),
        ),
        ("Classes", _imbalance(data, None)),
        (
            "Preprocessing before us",
            "Central 200 of 360 pixels, bilinear to 28, JPEG of quality 75, whose artefacts are "
            "part of the data."
            if _is_bloodmnist(data)
            else "; ".join(data["notes"]) or "As read.",
        ),
        ("Image statistics", f"Means of R, G, B over train {mean}; standard deviations {std}."),
        (
            "De-identification and consent",
            "The source published the images without patient identifiers."
            if _is_bloodmnist(data)
            else _NOT_SAID,
        ),
        (
            "Duplicates, leaks and label noise",
            f"hemascope audit {data['source']} looks for them."
            + (
                " The images as a whole hold 17 identical pairs, one of them with two labels."
                if data["kind"] == "rebuilt"
                else ""
            ),
        ),
        ("License", "CC BY 4.0, as stated." if _is_bloodmnist(data) else _NOT_SAID),
        ("Identity", f"{data['source']}, md5 of the {data['md5_of']} {data['md5']}."),
    ]


def _is_bloodmnist(data: Mapping[str, Any]) -> bool:
    return data["kind"] in ("official", "rebuilt")


def source(data: Mapping[str, Any]) -> str:
    """Where the images come from, and of whom they are."""
    if data["kind"] == "rendered":
        return "Rendered by hemascope's own generator: not blood, no people."
    return _PBC if _is_bloodmnist(data) else f"{data['title']}: what its user gave."


def reference(data: Mapping[str, Any]) -> str:
    """What the labels are."""
    if data["kind"] == "rendered":
        return "The class that the generator was told to draw."
    return _REFERENCE if _is_bloodmnist(data) else "The labels that came with the images."


def limitations(data: Mapping[str, Any]) -> str:
    """What nobody should expect of a network trained on the data."""
    if data["kind"] == "rendered":
        return "Rendered images: nothing here says anything about cells."
    if _is_bloodmnist(data):
        return (
            "One center, one stain, one camera. Whether patients occur in several splits is not "
            "known. Networks trained on these images fail on other laboratories' unless trained "
            "for it. Some labels are wrong."
        )
    return "Those of the data, which its user knows; other laboratories' images were not tried."


def _partition(data: Mapping[str, Any]) -> str:
    if data["kind"] == "official":
        return "MedMNIST's own split; it is not by patient."
    if data["kind"] == "rebuilt":
        return (
            "Our own split, random within each class with BloodMNIST's sizes, not the official "
            "one; it is not by patient."
        )
    return "As the source has it, or 7:1:2 within each class."


def _imbalance(data: Mapping[str, Any], training: Mapping[str, Any] | None) -> str:
    counts = {name: data["class_counts"]["train"][name] for name in data["class_names"]}
    text = "In train: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + "."
    if training is None:
        return text
    if training["balanced"]:
        return f"{text} Every class was drawn equally often."
    if only := training["augmentation"]["only_classes"]:
        return f"{text} Only images of {', '.join(only)} are varied."
    if training["loss"] in ("weighted", "class-balanced", "focal"):
        return f"{text} The loss is {training['loss']}."
    return (
        f"{text} Nothing was done about it; balanced accuracy and macro F1 stand beside accuracy."
    )


def _given(settings: Mapping[str, Any]) -> str:
    parts = [f", {role} {settings[role]}" for role in ("start", "teacher") if settings[role]]
    return "".join(parts)


def _switched_on(augmentation: Mapping[str, Any]) -> str:
    on = [f"{key} {value}" for key, value in augmentation.items() if value]
    return ", ".join(on) or "none"


def _selection(training: Mapping[str, Any]) -> str:
    kept = "The moving average of the weights" if training["average"] else "The weights"
    if training["patience"]:
        return (
            f"{kept} of the epoch with the lowest val loss; training stopped after "
            f"{training['patience']} epochs without a lower one."
        )
    return f"{kept} of the last epoch; nothing was chosen by test."


def _performance(comparison: Mapping[str, Any], name: str) -> str:
    net, certainty = comparison["networks"][name], comparison["certainty"]
    if "reason" in certainty:
        accuracy = net["results"]["accuracy"]["mean"]
        return (
            f"Accuracy {100 * accuracy:.2f} % (n = {net['n']}); no intervals: {certainty['reason']}"
        )
    figures = certainty["statistics"].networks[name].figures
    labels = {
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "f1_macro": "macro F1",
    }
    cells = [
        f"{label} {100 * figures[key].value:.2f} % "
        f"[{100 * figures[key].low:.2f}, {100 * figures[key].high:.2f}]"
        for key, label in labels.items()
    ]
    return f"Test, mean of n = {net['n']} seeds with 95 % intervals: {', '.join(cells)}."
