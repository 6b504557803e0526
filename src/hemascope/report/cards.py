"""A model card and a data card, under the headings of TRIPOD+AI and CLAIM.

Sources: Collins et al., TRIPOD+AI, BMJ 2024; Tejani et al., CLAIM 2024 update, Radiology: AI 2024.
"""

from dataclasses import dataclass

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.images import DataDescription
from hemascope.metrics.summary import Estimate, estimate
from hemascope.report.network import Network
from hemascope.report.page import environment, interval
from hemascope.settings.run import AugmentationSettings, RunSettings, TrainingSettings
from hemascope.store.provenance import BaseNetwork, Provenance
from hemascope.store.run_folder import RunResults

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
_NOT_SAID = "Not stated by the source."


@dataclass(frozen=True)
class Subject:
    """What a model card is about.

    Attributes:
        settings: How the network was trained.
        num_parameters: Of the network.
        data: What it was trained on.
        base: The network it began from, if it did.
        facts: What it was made with; None in a model that is passed on, which names no machine.
        performance: Its figures on test, in sentences; empty if they are not known.
    """

    settings: RunSettings
    num_parameters: int
    data: DataDescription
    base: BaseNetwork | None
    facts: Provenance | None
    performance: str


def model_card(subject: Subject) -> Card:
    """The card of a network."""
    data, settings, facts = subject.data, subject.settings, subject.facts
    training = settings.training
    test = (
        "test is also evaluated after every epoch, as the study does; nothing is chosen by it."
        if training.test_every_epoch
        else "test is read once per run."
    )
    made_with: Card = []
    if facts:
        versions = ", ".join(f"{package} {version}" for package, version in facts.versions.items())
        made_with = [
            ("Software and hardware", f"{versions}; {facts.machine.processor}."),
            ("Availability", f"Code: Apache-2.0. Made by: {facts.command}"),
        ]
    return [
        (
            "Intended use and users",
            "Sorting images of single cells into classes before an expert looks at them, and "
            f"comparing networks. {RESEARCH_USE_ONLY} An image of anything else is given one of "
            f"the classes all the same. Classes: {', '.join(data.class_names)}.",
        ),
        (
            "Data source and eligibility",
            f"{data.title}, md5 of the {data.md5_of} {data.md5}. {source(data)}",
        ),
        ("Reference standard (outcome)", reference(data)),
        ("Predictors", f"The pixels of one RGB image of {data.image_size}x{data.image_size}."),
        (
            "Data partitions and sample size",
            f"{partitions(data)} images. Fitted on train; val is used for model selection and "
            f"calibration; {test}",
        ),
        ("Missing data", "None: every image has all pixels and one label."),
        ("Data preparation", "Pixels / 255; no other preprocessing outside the network."),
        ("Class imbalance", f"{_train_counts(data)} {_remedy(training)}"),
        (
            "Model description",
            f"'{settings.model.name}' with the options {settings.model.options}; "
            f"{subject.num_parameters:,} parameters.",
        ),
        ("Base model", _base(subject)),
        (
            "Initialization and training",
            f"{training.init} initialization where no weights are given; {training.optimizer}, "
            f"learning rate {training.learning_rate:g}, {training.schedule} schedule, "
            f"{training.epochs} epochs, batches of {training.batch_size}, loss {training.loss}; "
            f"augmentation {_switched_on(training.augmentation)}; seed {settings.seed}.",
        ),
        ("Selection of the final model", _selection(training)),
        (
            "Model output",
            "A score for each class; its softmax, at the temperature fitted on val, is the "
            "confidence.",
        ),
        ("Model performance", subject.performance or "Not known here."),
        (
            "Fairness",
            "Nothing is known of the people behind these images, so performance in groups of "
            "people cannot be given.",
        ),
        (
            "Robustness, external validation, explainability",
            "Not part of this card: hemascope corruptions, transfer (cells of another laboratory) "
            "and explain report them.",
        ),
        ("Limitations", limitations(data)),
        ("Human oversight", "Every answer needs an expert; flag the uncertain ones for review."),
        *made_with,
    ]


def data_card(data: DataDescription) -> Card:
    """The card of a data set."""
    mean, std = (
        ", ".join(f"{value:.4f}" for value in values)
        for values in (data.channel_mean, data.channel_std)
    )
    return [
        ("Title", data.title),
        ("Data source and eligibility", source(data)),
        ("Reference standard (outcome)", reference(data)),
        ("Data partitions", f"{partitions(data)}. {_split_by(data)}"),
        ("Classes", _train_counts(data)),
        (
            "Preprocessing before us",
            "Central 200 of 360 pixels, bilinear to 28, JPEG of quality 75, whose artefacts are "
            "part of the data."
            if _is_bloodmnist(data)
            else " ".join(data.notes) or "As read.",
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
            f"hemascope audit {data.source} looks for them."
            + (
                " The images as a whole hold 17 identical pairs, one of them with two labels."
                if data.kind == "rebuilt"
                else ""
            ),
        ),
        ("License", "CC BY 4.0, as stated." if _is_bloodmnist(data) else _NOT_SAID),
        ("Identity", f"{data.source}, md5 of the {data.md5_of} {data.md5}."),
    ]


def card_markdown(title: str, card: Card) -> str:
    """A card as a Markdown file of its own."""
    page = environment(autoescape=False).get_template("card.md.jinja")
    return page.render(title=title, card=card, notice=RESEARCH_USE_ONLY)


def performance(network: Network, results: RunResults) -> str:
    """What a card quotes: no share without its number of images and its interval."""
    seeds = f", mean of {network.n} seeds" if network.n > 1 else ""
    parts = [f"accuracy {_quoted(network.accuracy)}"]
    if network.n == 1 and (views := results.with_views):
        of_views = estimate(views.accuracy, results.num_images)
        parts.append(f"accuracy with {views.num_views} views {_quoted(of_views)}")
    if network.f1_macro:
        parts.append(f"macro F1 {_quoted(network.f1_macro)}")
    if name := network.worst_class:
        found = network.per_class[name].sensitivity
        parts += [f"lowest sensitivity {_quoted(found)}, of {name}"] if found else []
    return f"{results.data}, split {results.split}{seeds}, with 95 % intervals: {'; '.join(parts)}."


def _quoted(share: Estimate) -> str:
    return f"{interval(share)} (n = {share.n:,})"


def partitions(data: DataDescription) -> str:
    """How many images each split has."""
    return ", ".join(f"{split} {count:,}" for split, count in data.counts.items())


def _is_bloodmnist(data: DataDescription) -> bool:
    return data.kind in ("official", "rebuilt")


def source(data: DataDescription) -> str:
    """Where the images come from, and of whom they are."""
    if data.kind == "rendered":
        return "Rendered by hemascope's own generator: not blood, no people."
    return _PBC if _is_bloodmnist(data) else "Supplied by the user; the source is not documented."


def reference(data: DataDescription) -> str:
    """What the labels are."""
    if data.kind == "rendered":
        return "The class that the generator was told to draw."
    return _REFERENCE if _is_bloodmnist(data) else "The labels that came with the images."


def limitations(data: DataDescription) -> str:
    """What nobody should expect of a network trained on the data."""
    if data.kind == "rendered":
        return "Rendered images: nothing here says anything about cells."
    if _is_bloodmnist(data):
        return (
            "One center, one stain, one camera. Whether patients occur in several splits is not "
            "known. Networks trained on these images fail on other laboratories' unless trained "
            "for it. Some labels are wrong."
        )
    return "Those of the data, which are not documented; not validated on other laboratories."


def _split_by(data: DataDescription) -> str:
    if data.kind == "official":
        return "MedMNIST's own split; it is not by patient."
    if data.kind == "rebuilt":
        return (
            "Our own split, random within each class with BloodMNIST's sizes, not the official "
            "one; it is not by patient."
        )
    return "As the source has it, or 7:1:2 within each class."


def _train_counts(data: DataDescription) -> str:
    split = "train" if "train" in data.class_counts else next(iter(data.class_counts))
    counts = (f"{name} {data.class_counts[split][name]:,}" for name in data.class_names)
    return f"In {split}: {', '.join(counts)}."


def _remedy(training: TrainingSettings) -> str:
    if training.balanced:
        return "Every class was sampled equally often."
    if only := training.augmentation.only_classes:
        return f"Only images of {', '.join(only)} are augmented."
    if training.loss in ("weighted", "class-balanced", "focal"):
        return f"The loss is {training.loss}."
    return "Nothing was done about it; balanced accuracy and macro F1 stand beside accuracy."


def _base(subject: Subject) -> str:
    settings = subject.settings
    taught = f" Taught by {settings.teacher}." if settings.teacher else ""
    if subject.base:
        base = subject.base
        return (
            f"{base.name} ({settings.start}), trained on {base.num_images:,} images of "
            f"{base.data}; weights SHA-256 {base.weights_sha256}.{taught}"
        )
    if settings.start:
        return f"{settings.start}; its data are not known here.{taught}"
    if settings.model.options.get("pretrained"):
        return f"The published weights of {settings.model.name}, as timm provides them.{taught}"
    return f"None: trained from random weights.{taught}"


def _switched_on(augmentation: AugmentationSettings) -> str:
    on = [f"{key} {value}" for key, value in augmentation.model_dump().items() if value]
    return ", ".join(on) or "none"


def _selection(training: TrainingSettings) -> str:
    kept = "The moving average of the weights" if training.average else "The weights"
    if training.patience:
        return (
            f"{kept} of the epoch with the lowest val loss; training stopped after "
            f"{training.patience} epochs without a lower one."
        )
    return f"{kept} of the last epoch; nothing was chosen by test."
