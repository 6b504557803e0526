"""`transfer`: a network on cells of another laboratory."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from conftest import Outcome

Run = Callable[..., Outcome]


def test_every_way_to_fit_colors_is_compared_and_known_classes_never_answer_with_another(
    trained: Path, small_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    mapping = tmp_path / "map.toml"
    mapping.write_text('colors = "group"\n[classes]\nplatelet = ""\n')
    out = tmp_path / "out"
    words = ("--data", small_npz, "--split", "test", "--map", mapping, "--out", out)
    outcome = hemascope("transfer", trained, *words)
    assert outcome.code == 0, outcome.err
    content = json.loads((out / "transfer.json").read_text())
    ways = {"colors as they are", "each image fitted", "all fitted together"}
    known = {f"{way}, classes known" for way in ways}
    assert set(content["calibration"]) == ways | known
    assert content["comparison"]["num_images"] == 21  # 24, less the platelets that the map drops
    assert "all fitted together" in outcome.out
    assert (out / "figures").is_dir()
    networks = content["comparison"]["networks"]
    plain = networks["colors as they are"]["figures"]["accuracy"]
    restricted = networks["colors as they are, classes known"]["figures"]["accuracy"]
    assert restricted["value"] >= plain["value"]


def test_one_class_has_intervals_but_no_auroc(
    trained: Path, small_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    names = ("basophil", "eosinophil", "erythroblast", "immature granulocyte", "lymphocyte")
    lines = "".join(f'"{name}" = ""\n' for name in (*names, "monocyte", "neutrophil"))
    mapping = tmp_path / "map.toml"
    mapping.write_text(f"[classes]\n{lines}")
    out = tmp_path / "out"
    words = ("--data", small_npz, "--split", "test", "--map", mapping, "--out", out)
    outcome = hemascope("transfer", trained, *words)
    assert outcome.code == 0, outcome.err
    assert "AUROC, macro (it needs images of two classes)" in outcome.out
    for network in json.loads((out / "transfer.json").read_text())["comparison"][
        "networks"
    ].values():
        assert network["figures"]["auroc_ovr_macro"] is None
        accuracy = network["figures"]["accuracy"]
        assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1


def test_a_class_with_one_image_costs_nothing_else(
    trained: Path, small_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    with np.load(small_npz) as stored:
        arrays = dict(stored)
    labels = arrays["test_labels"].ravel()
    keep = (labels != 0) | (np.arange(len(labels)) == np.flatnonzero(labels == 0)[0])
    arrays |= {key: arrays[key][keep] for key in ("test_images", "test_labels")}
    np.savez(tmp_path / "fewer.npz", **arrays)
    out = tmp_path / "out"
    words = ("--data", tmp_path / "fewer.npz", "--split", "test", "--out", out)
    outcome = hemascope("transfer", trained, *words)
    assert outcome.code == 0, outcome.err
    comparison = json.loads((out / "transfer.json").read_text())["comparison"]
    assert list(comparison["left_out"]) == ["sensitivity:basophil"]
    assert comparison["num_images"] == keep.sum()
    assert "sensitivity of basophil (the class has a single image" in outcome.out
