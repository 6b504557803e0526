"""`export`: ONNX graphs that answer as the network does, and what is fitted to them on val."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import binomtest

from conftest import Outcome, read
from hemascope.core.classes import Split
from hemascope.core.errors import UsageError
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.inference.onnx_engine import load_onnx
from hemascope.inference.predictor import Predictor
from hemascope.inference.to_onnx import to_int8
from hemascope.inference.torch_engine import TorchEngine, load_model
from hemascope.store.model_folder import load_info, load_seen

Run = Callable[..., Outcome]
CPU = torch.device("cpu")


def test_a_graph_alone_answers_as_torch_does(tiny: Path, exported: Path, cells_npz: Path) -> None:
    images = read(cells_npz).splits[Split.TEST].images
    [file] = exported.glob("fp32-*.onnx")
    session = ort.InferenceSession(str(file))  # as another program would: pixels in, no more
    logits: Any = session.run(["logits"], {"images": images})[0]
    expected = TorchEngine(load_model(tiny)[1], device=CPU).logits(images)
    np.testing.assert_allclose(logits, expected, atol=1e-3)
    for image, of_image in zip(images[:4], expected, strict=False):
        [[alone]] = session.run(["logits"], {"images": image[None]})  # type: ignore[misc]
        np.testing.assert_allclose(alone, of_image, atol=1e-3)


def test_maps_and_bias_add_up_to_the_logits(tiny: Path, exported: Path, cells_npz: Path) -> None:
    images = read(cells_npz).splits[Split.TEST].images
    engine = load_onnx(exported, None)[2]
    bias = load_model(tiny)[1].head.bias.detach().numpy()  # type: ignore[union-attr]
    maps = engine.maps(images)
    assert maps.shape[:2] == (len(images), 8)
    assert maps.shape[2] > 1
    np.testing.assert_allclose(maps.sum(axis=(2, 3)) + bias, engine.logits(images), atol=1e-3)


def test_int8_and_fp16_beside_fp32(
    tiny: Path, cells_npz: Path, tmp_path: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemascope.workflows.export._LARGEST_LOSS", 0.1)  # a network of 4 epochs
    out = tmp_path / "out"
    args = ("export", tiny, "--data", cells_npz, "--out", out, "--int8", "--fp16")
    outcome = hemascope(*args)
    assert outcome.code == 0, outcome.err
    info = load_info(out)
    sizes = {graph.precision: graph.size_bytes for graph in info.onnx}
    assert set(sizes) == {"fp32", "int8", "fp16"}
    assert sizes["int8"] < 0.75 * sizes["fp32"]
    assert sizes["fp16"] < 0.75 * sizes["fp32"]
    assert info.recommended in sizes
    images = read(cells_npz).splits[Split.TEST].images
    said: dict[str, NDArray[np.float64]] = {
        graph.precision: Predictor(out, precision=graph.precision).predict_proba(images)
        for graph in info.onnx
    }
    assert np.abs(said["int8"] - said["fp32"]).max() > 0
    assert (said["int8"].argmax(1) == said["fp32"].argmax(1)).mean() > 0.8
    np.testing.assert_allclose(said["fp16"], said["fp32"], atol=0.05)
    quantized = onnx.load(next(out.glob("int8-*.onnx")))
    kinds = {node.op_type for node in quantized.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "Conv"} <= kinds
    assert "int8" in outcome.out
    assert "never score it" not in (out / "MODEL_CARD.md").read_text()  # these are rendered cells
    assert hemascope(*args).code == 2  # the folder is there


@pytest.mark.parametrize("count", [3, 70])
def test_int8_takes_any_number_of_samples(exported: Path, cells_npz: Path, count: int) -> None:
    [file] = exported.glob("fp32-*.onnx")
    images = read(cells_npz).splits[Split.TRAIN].images
    graph = to_int8(file.read_bytes(), images[:count])
    session = ort.InferenceSession(graph)
    [logits] = session.run(["logits"], {"images": images[:2]})
    assert np.isfinite(np.asarray(logits)).all()


def test_the_folder_says_what_it_was_trained_on_and_nothing_of_the_machine(
    tiny: Path, exported: Path
) -> None:
    kept, seen = load_seen(exported), load_seen(tiny)
    assert kept is not None
    assert seen is not None
    assert np.array_equal(kept.looks, seen.looks)
    assert np.array_equal(kept.names, seen.names)
    graph = onnx.load(next(exported.glob("*.onnx")))
    assert {entry.key for entry in graph.metadata_props} >= {"class_names", "notice"}
    assert b"site-packages" not in graph.SerializeToString()
    card = (exported / "MODEL_CARD.md").read_text()
    assert "Research use only" in card
    assert "min. probability in the 99 % set" in card
    val = load_info(exported).onnx[0].val_accuracy
    low, high = binomtest(round(128 * val), 128).proportion_ci(method="wilson")
    assert "n = 128 | views |" in card
    assert f"| {100 * val:.1f} % [{100 * low:.1f}, {100 * high:.1f}] | 1 |" in card
    assert "split test, with 95 % intervals: accuracy " in card
    assert str(Path.home()) not in card


def test_what_is_fitted_holds_on_val(exported: Path, cells_npz: Path) -> None:
    val = read(cells_npz).splits[Split.VAL]
    for views in (1, 8):
        for coverage in (0.95, 0.99):
            predictor = Predictor(exported, views=views, coverage=coverage)
            answers = predictor.predict(val.images)
            names = [predictor.class_names[label] for label in val.labels]
            held = [
                name in answer.prediction_set for name, answer in zip(names, answers, strict=True)
            ]
            assert np.mean(held) >= coverage
            right = [
                answer.predicted_class == name
                for name, answer in zip(names, answers, strict=True)
                if answer.confidence >= predictor.decision_of().abstain_below
            ]
            assert np.mean(right or [1]) >= predictor.decision_of().wanted_accuracy


def test_evaluate_takes_an_exported_model(
    tiny: Path, exported: Path, cells_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    results: list[dict[str, float]] = []
    for model in (tiny, exported):
        out = tmp_path / f"out-{model.name}"
        outcome = hemascope("evaluate", model, "--data", cells_npz, "--out", out)
        assert outcome.code == 0, outcome.err
        results.append(json.loads((out / "results.json").read_text()))
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], abs=1e-4)


def test_a_model_of_few_images_is_exported_without_sets_or_maps_that_it_cannot_have(
    trained: Path, small_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    few = tmp_path / "few"
    outcome = hemascope("export", trained, "--data", small_npz, "--out", few)
    assert outcome.code == 0, outcome.err
    predictor = Predictor(few)
    assert predictor.coverage is None
    answers = predictor.predict(read(small_npz).splits[Split.TEST].images)
    assert all(answer.prediction_set == () and not answer.error for answer in answers)
    with pytest.raises(UsageError, match="not fitted: too few val images"):
        Predictor(few, coverage=0.95)
    with pytest.raises(UsageError, match="no class-activation maps"):
        predictor.check_maps()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("export", "MODEL", "--data", "DATA", "--out", "OUT"), "is an exported model"),
        (("export", "RUN", "--data", "SMALL", "--out", "OUT"), "was trained on other data"),
        (("export", "nothing", "--data", "DATA", "--out", "OUT"), "(hemanet, hemanet-64-labs)"),
        (("evaluate", "RUN", "--data", "DATA", "--precision", "int8"), "is for exported models"),
        (("evaluate", "MODEL", "--data", "DATA", "--precision", "int8"), "no int8 graph"),
        (("evaluate", "MODEL", "--data", "DATA", "--precision", "bf16"), "is for PyTorch"),
        (("explain", "MODEL", "--data", "DATA", "--out", "OUT"), "is an exported model"),
        (("predict", "DATA", "--model", "RUN"), "run 'hemascope export"),
    ],
)
def test_refused(
    args: tuple[str, ...],
    said: str,
    tiny: Path,
    exported: Path,
    cells_npz: Path,
    small_npz: Path,
    tmp_path: Path,
    hemascope: Run,
) -> None:
    names = {"MODEL": exported, "RUN": tiny, "DATA": cells_npz, "SMALL": small_npz}
    outcome = hemascope(*(names.get(arg, tmp_path / arg if arg == "OUT" else arg) for arg in args))
    assert outcome.code == 2
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_an_altered_graph_is_refused(exported: Path, tmp_path: Path, hemascope: Run) -> None:
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    graph = next(copy.glob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    outcome = hemascope("predict", tmp_path, "--model", copy)
    assert outcome.code == 2
    assert "SHA-256 differs" in outcome.err
    graph.unlink()
    assert "the model is incomplete" in hemascope("predict", tmp_path, "--model", copy).err


def test_a_graph_with_its_preparation_is_made_of_an_exported_model(
    exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    out = tmp_path / "edge"
    args = ("export", exported, "--whole-pipeline", "--out", out)
    outcome = hemascope(*args, "--crop", "0.8")
    assert outcome.code == 0, outcome.err
    assert "not in the graph: the guard, the mean over eight views" in outcome.out
    cells = render(np.arange(8), seed=0, image_size=90)
    session = ort.InferenceSession(out / "photographs.onnx")
    probs: Any = session.run(["probs"], {"photographs": cells})[0]
    expected = Predictor(exported, crop=0.8).predict_proba(cells)
    np.testing.assert_allclose(probs, expected, atol=1e-5)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list(BLOOD_CELLS.names)
    assert "the guard" in about["preparation"]
    refused = hemascope(*args[:4], tmp_path / "x", "--frame", "cell")
    assert refused.code == 2
    assert "--frame: a graph cannot look for cells" in refused.err
    refused = hemascope(*args[:4], tmp_path / "x", "--int8")
    assert refused.code == 2
    assert refused.err.count("\n") == 1
