"""What the cards say, and that no share stands in them without its interval."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from conftest import results_of
from hemascope.core.classes import ClassSet
from hemascope.core.image_spec import ImageSpec
from hemascope.core.images import DataDescription
from hemascope.core.predictions import Predictions
from hemascope.metrics import evaluate_all
from hemascope.report.cards import Card, data_card, joined, model_card, performance
from hemascope.report.network import summarize
from hemascope.settings.run import RunSettings, load_preset
from hemascope.store.provenance import BaseNetwork, provenance
from hemascope.store.run_folder import FiguresWithViews

SHARE = re.compile(r"\d+\.\d %")
QUOTED = re.compile(r"\d+\.\d % \[\d+\.\d, \d+\.\d\] \(n = [\d,]+\)")


@pytest.fixture
def data() -> DataDescription:
    return DataDescription(
        title="my cells",
        kind="other",
        source="cells",
        md5="0" * 32,
        md5_of="pixels",
        image=ImageSpec(size=64),
        image_size=64,
        collection="",
        bad=(),
        class_names=("blast", "smudge"),
        counts={"train": 30, "val": 10, "test": 20},
        class_counts={
            "train": {"blast": 10, "smudge": 20},
            "val": {"blast": 3, "smudge": 7},
            "test": {"blast": 4, "smudge": 16},
        },
        channel_mean=(0.5, 0.5, 0.5),
        channel_std=(0.1, 0.1, 0.1),
        notes=("3 images were resized.",),
    )


@pytest.fixture
def predictions() -> Predictions:
    """Three of four blasts and all 16 smudges are right."""
    labels = np.repeat(np.array([0, 1]), (4, 16))
    logits = np.eye(2, dtype=np.float32)[labels]
    logits[0] = logits[-1]
    return Predictions(tuple(map(str, range(20))), logits, labels, ClassSet(("blast", "smudge")))


def _card(settings: RunSettings, data: DataDescription, **changes: Any) -> Card:
    values: dict[str, Any] = {"base": None, "facts": provenance(), **changes}
    return model_card(settings, data, num_parameters=1234, performance="", **values)


def _under(card: Card, heading: str) -> str:
    return dict(card)[heading]


def test_no_share_is_quoted_without_its_number_and_interval(predictions: Predictions) -> None:
    views = FiguresWithViews(num_views=8, **dict(evaluate_all(predictions)))
    results = results_of(predictions, with_views=views)
    text = performance(summarize(load_preset("paper-cnn"), [results]), results)
    assert "accuracy 95.0 % [76.4, 99.1] (n = 20)" in text
    assert "lowest sensitivity 75.0 % [30.1, 95.4] (n = 4), of blast" in text
    assert "accuracy with 8 views 95.0 % [76.4, 99.1] (n = 20)" in text
    assert "macro F1 " in text
    assert len(SHARE.findall(text)) == len(QUOTED.findall(text)) == 4


def test_several_seeds_are_said_and_have_the_interval_of_their_mean(
    predictions: Predictions,
) -> None:
    perfect = replace(predictions, logits=20 * np.eye(2, dtype=np.float32)[predictions.labels])
    results = [results_of(predictions), results_of(perfect, seed=1)]
    text = performance(summarize(load_preset("paper-cnn"), results), results[0])
    assert "mean of 2 seeds" in text
    assert "accuracy 97.5 % [" in text
    assert len(SHARE.findall(text)) == len(QUOTED.findall(text))


def test_the_base_model_and_its_data_are_named(data: DataDescription) -> None:
    fresh = load_preset("paper-cnn")
    assert _under(_card(fresh, data), "Base model").startswith("None")
    started = fresh.model_copy(update={"start": "runs/a", "teacher": "runs/b"})
    assert "its data are not known here" in _under(_card(started, data), "Base model")
    base = BaseNetwork(name="hemanet", data="BloodMNIST", num_images=11_959, weights_sha256="ab")
    text = _under(_card(started, data, base=base), "Base model")
    assert "hemanet (runs/a), trained on 11,959 images of BloodMNIST" in text
    assert "Taught by runs/b" in text


def test_cards_of_one_s_own_data_claim_nothing_of_bloodmnist(data: DataDescription) -> None:
    cards = [_card(load_preset("paper-cnn"), data), data_card(data)]
    for text in (text for card in cards for _, text in card):
        assert "Barcelona" not in text
        assert "MedMNIST" not in text
    assert "In train: blast 10, smudge 20." in _under(cards[0], "Class imbalance")
    assert _under(cards[1], "Preprocessing before us") == "3 images were resized."


def test_cards_of_a_published_collection_say_what_its_publisher_says(data: DataDescription) -> None:
    """Only BloodMNIST's are cells from Barcelona, whatever other official file is read."""
    derma = replace(data, kind="official", collection="dermamnist")
    text = " ".join(text for _, text in data_card(derma))
    assert "HAM10000" in text
    assert "CC BY-NC 4.0, as stated by the publisher" in text
    assert "Barcelona" not in text
    blood = replace(data, kind="rebuilt", collection="bloodmnist")
    text = " ".join(text for _, text in data_card(blood))
    assert "Barcelona" in text
    assert "Central 200 of 360 pixels" in text


def test_a_card_that_is_passed_on_names_no_machine(data: DataDescription) -> None:
    headings = {"Software and hardware", "Availability"}
    assert headings <= dict(_card(load_preset("paper-cnn"), data)).keys()
    assert not headings & dict(_card(load_preset("paper-cnn"), data, facts=None)).keys()


def test_every_part_of_a_card_says_something(data: DataDescription) -> None:
    for card in (_card(load_preset("hemanet"), data), data_card(data)):
        assert len({heading for heading, _ in card}) == len(card)
        assert all(text.strip() for _, text in card)


def test_cards_of_several_networks_are_one_that_marks_what_differs() -> None:
    cards = {
        "a": [("Data", "same"), ("Seed", "0")],
        "b": [("Data", "same"), ("Seed", "1")],
        "c": [("Data", "same"), ("Seed", "1"), ("Base", "a")],
    }
    data, seed, base = joined(cards)
    assert (data.differs, data.texts) == (False, [("a, b, c", "same")])
    assert (seed.differs, seed.texts) == (True, [("a", "0"), ("b, c", "1")])
    assert base.texts == [("a, b", "not given"), ("c", "a")]
