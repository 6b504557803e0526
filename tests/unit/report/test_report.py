"""What the report says of runs whose figures are known."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import results_of
from hemascope.core.errors import DataError
from hemascope.core.image_spec import ImageSpec
from hemascope.core.images import DataDescription
from hemascope.core.predictions import Predictions
from hemascope.data.collections import BLOOD_CELLS
from hemascope.metrics.statistics import Interval
from hemascope.metrics.summary import estimate, spread
from hemascope.report import plots
from hemascope.report.figures import caption_of
from hemascope.report.network import Confused
from hemascope.report.numbers import (
    in_percent,
    interval,
    percent,
    plain,
    shown,
    signed,
    spread_text,
)
from hemascope.report.text import number, results_text
from hemascope.settings.run import load_preset
from hemascope.store.provenance import Fingerprint, Machine
from hemascope.store.run_folder import History, RunFolder, SavedRun
from hemascope.study import published as study
from hemascope.study.comparison import compare, group


def _data(predictions: Predictions, **changes: Any) -> DataDescription:
    counts = dict(zip(BLOOD_CELLS.names, np.bincount(predictions.labels).tolist(), strict=True))
    facts: dict[str, Any] = {
        "title": "t",
        "kind": "rebuilt",
        "source": "s",
        "md5": "0" * 32,
        "md5_of": "file",
        "image": ImageSpec(),
        "image_size": 28,
        "collection": "bloodmnist",
        "bad": (),
        "class_names": BLOOD_CELLS.names,
        "counts": {"test": len(predictions.labels)},
        "class_counts": {"test": counts},
        "channel_mean": (0.5, 0.5, 0.5),
        "channel_std": (0.1, 0.1, 0.1),
        "notes": (),
    }
    return DataDescription(**(facts | changes))


def _run(preset: str, seed: int, predictions: Predictions, **data: Any) -> SavedRun:
    epochs = np.linspace(1, 0, 15)
    first = 1.58 if preset == "paper-cnn-curve" else 1.2
    history = History(
        {
            "epoch": np.arange(1.0, 16),
            "train_loss": 0.313 + (first - 0.313) * epochs + 0.001 * seed,
            "train_accuracy": 0.883 - 0.495 * epochs,
            "test_accuracy": 0.865 - 0.349 * epochs,
            "test_f1_weighted": 0.866 - 0.419 * epochs,
        }
    )
    settings = load_preset(preset).model_copy(update={"seed": seed})
    fingerprint = Fingerprint(
        command="hemascope reproduce",
        date="2026-01-01",
        versions={},
        machine=Machine(platform="p", processor="p", cores=2),
        data=_data(predictions, **data),
    )
    folder = RunFolder(Path(f"{preset}-seed{seed}"))
    results = results_of(predictions, name=preset, seed=seed)
    return SavedRun(folder, settings, results, history, fingerprint)


@pytest.fixture
def runs(random_predictions: Predictions) -> list[SavedRun]:
    presets = ("paper-cnn", "paper-cnn-curve", "paper-mlnn")
    return [_run(preset, seed, random_predictions) for preset in presets for seed in (1, 0)]


def test_runs_are_grouped_by_network_with_seeds_in_order(runs: list[SavedRun]) -> None:
    groups = group(runs)
    assert set(groups) == {"paper-cnn", "paper-cnn-curve", "paper-mlnn"}
    assert [run.settings.seed for run in groups["paper-cnn"]] == [0, 1]


def test_runs_on_other_data_or_with_other_settings_are_refused(
    runs: list[SavedRun], random_predictions: Predictions
) -> None:
    with pytest.raises(DataError, match="other data"):
        group([*runs, _run("paper-cnn", 2, random_predictions, md5="1" * 32)])
    training = runs[0].settings.training.model_copy(update={"epochs": 3})
    settings = runs[0].settings.model_copy(update={"training": training, "seed": 9})
    with pytest.raises(DataError, match="differ in more than the seed"):
        group([*runs, replace(runs[0], settings=settings)])


def test_differences_are_ours_minus_the_study_s_and_for_cnns_alone(runs: list[SavedRun]) -> None:
    accuracy = compare(group(runs)).table_2[0]
    ours = runs[0].results.accuracy
    assert accuracy.difference == {
        "paper-cnn": pytest.approx(ours - 0.8652),
        "paper-cnn-curve": pytest.approx(ours - 0.8652),
    }
    assert accuracy.ours.keys() == {"paper-cnn", "paper-cnn-curve", "paper-mlnn"}


def test_the_nearer_preset_is_counted_point_by_point(runs: list[SavedRun]) -> None:
    curve = compare(group(runs)).findings.curve
    assert curve is not None
    assert len(curve.points) == len(study.CURVE_FIRST) + len(study.CURVE_LAST)
    first_loss = curve.points[0]
    assert first_loss.nearer == "paper-cnn-curve"
    assert first_loss.within_range == ("paper-cnn-curve",)
    assert curve.full_length


@pytest.mark.parametrize(("kind", "collection"), [("other", ""), ("official", "pathmnist")])
def test_other_data_says_nothing_about_the_study_s_curve(
    kind: str, collection: str, runs: list[SavedRun], random_predictions: Predictions
) -> None:
    data = {"kind": kind, "collection": collection}
    other = [_run(run.settings.name, run.settings.seed, random_predictions, **data) for run in runs]
    assert compare(group(other)).findings.curve is None


def test_the_attractor_is_the_class_most_errors_end_in(random_predictions: Predictions) -> None:
    p = random_predictions
    logits = np.eye(8, dtype=np.float32)[p.labels]
    wrong = np.flatnonzero(p.labels == 5)[:7]
    logits[wrong] = np.eye(8, dtype=np.float32)[3]
    run = _run("paper-cnn", 0, Predictions(p.ids, logits, p.labels, p.classes))
    comparison = compare(group([run]))
    assert comparison.findings.attractor is not None
    found = comparison.findings.attractor["paper-cnn"]
    assert (found.label, found.errors, found.all_errors) == (3, 7, 7)
    assert found.share_of_other_images == pytest.approx(7 / 175)
    (pair,) = comparison.networks["paper-cnn"].most_confused
    assert pair == Confused("monocyte", "immature granulocyte", 7, 7 / 25)


def test_without_errors_there_is_no_attractor(random_predictions: Predictions) -> None:
    p = random_predictions
    perfect = Predictions(p.ids, np.eye(8, dtype=np.float32)[p.labels], p.labels, p.classes)
    comparison = compare(group([_run("paper-cnn", 0, perfect)]))
    assert comparison.findings.attractor == {}


def test_figures_are_written_as_print_writes_them() -> None:
    assert percent(0.8652) == "86.5 %"
    assert plain(0.8664) == "0.866"
    assert plain(422_344) == "422,344"
    assert signed(-0.0030) == "\N{MINUS SIGN}0.0030"
    assert signed(0.0483, as_percent=True) == "+4.8 points"
    assert signed(0) == "0"
    assert signed(2_363_644) == "+2,363,644"
    assert spread_text(spread([0.9013, 0.9257]), as_percent=True) == "91.3 ± 1.7 %"
    assert spread_text(spread([0.9135])) == "0.913"
    assert shown(spread([1_690_400, 1_690_400]), "size_bytes") == "1.69"
    assert shown(spread([0.9135]), "f1_macro") == "91.3 %"
    assert plain(53.2721) == "53.3"
    assert in_percent(spread([0.9, 0.92])) == "91.0 ± 1.4"
    assert interval(estimate(0.9, 10)) == "90.0 % [59.6, 98.2]"
    assert interval(Interval(1, 1, 1)) == "100.0 % [-]"
    assert number(None) == "-"


def test_a_results_text_names_its_data_and_every_class(random_predictions: Predictions) -> None:
    text = results_text(_run("paper-cnn", 0, random_predictions).results)
    assert text.startswith("paper-cnn on t, split test")
    assert all(f"\n{name}" in text for name in BLOOD_CELLS.names)
    assert "Research use only" in text


def test_every_picture_carries_its_data_s_name(random_predictions: Predictions) -> None:
    results = results_of(random_predictions, data="RENDERED CELLS, NOT BLOODMNIST")
    caption = caption_of(results, "seed 0")
    curve = np.linspace(0, 1, 3)
    names = list(BLOOD_CELLS.names)
    common: dict[str, Any] = {"title": "t", "caption": caption}
    figures = [
        plots.confusion_heatmap(np.eye(8, dtype=np.int64), names, normalize=True, **common),
        plots.class_dots({"a": np.ones(8)}, names, quantity="q", **common),
        plots.learning_curves(
            [plots.CurveGroup("g", np.stack([curve, curve]))],
            published={1: 0.5},
            quantity="q",
            as_percent=False,
            **common,
        ),
    ]
    for figure in figures:
        assert "RENDERED CELLS, NOT BLOODMNIST" in figure.get_supxlabel()
        assert plots.render(figure, "png").startswith(b"\x89PNG")


def test_the_heatmap_shows_counts_or_shares_of_each_row() -> None:
    confusion = np.array([[3, 1], [0, 0]], dtype=np.int64)
    texts = {}
    for normalize in (False, True):
        figure = plots.confusion_heatmap(
            confusion, ["a", "b"], normalize=normalize, title="t", caption="c"
        )
        texts[normalize] = [text.get_text() for text in figure.axes[0].texts]
    assert texts == {False: ["3", "1", "0", "0"], True: ["75", "25", "0", "0"]}
