"""`explain`, `corruptions` and `evaluate --map`: what they write, what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome
from hemascope.data import load
from hemascope.data.rendered import render
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.settings.run import load_config
from hemascope.workflows.progress import Reporter
from hemascope.workflows.train import fit

Run = Callable[..., Outcome]

_FOLDERS = {"baso": 0, "eos": 1, "band": 6, "segmented": 6, "odd": 3, "smudge": 2}
_MAP = """
[classes]
baso = "basophil"
eos = "eosinophil"
band = "neutrophil"
segmented = "neutrophil"
odd = "immature granulocyte"
smudge = ""
"""


@pytest.fixture(scope="module")
def other_lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six folders of another laboratory: two are one class of ours, one has a single image."""
    root = tmp_path_factory.mktemp("other") / "cells"
    for name, label in _FOLDERS.items():
        (root / name).mkdir(parents=True)
        count = 1 if name == "odd" else 6
        for i, image in enumerate(render(np.full(count, label), seed=label)):
            Image.fromarray(image).resize((60, 60)).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def map_file(tmp_path: Path) -> Path:
    path = tmp_path / "map.toml"
    path.write_text(_MAP)
    return path


def test_explain_draws_errors_and_hits(
    trained: Path, small_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    out = tmp_path / "out"
    outcome = hemascope("explain", trained, "--data", small_npz, "--out", out, "--number", 3)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "explanations.json").read_text())
    assert found["methods"] == ["Grad-CAM", "integrated gradients"]
    assert len(found["hits"]) <= 3
    confidences = [row["confidence"] for row in found["errors"]]
    assert confidences == sorted(confidences, reverse=True)
    assert all(row["label"] != row["predicted"] for row in found["errors"])
    drawn = {path.stem for path in (out / "figures").glob("*.png")}
    assert {"errors", "insertion-deletion"} <= drawn
    assert "random order" in outcome.out


def test_corruptions_against_itself_under_another_name(
    run_folder: Path, trained: Path, small_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    info = run_folder / "model" / "artifact.json"
    info.write_text(info.read_text().replace('"name": "paper-cnn"', '"name": "again"'))
    out = tmp_path / "out"
    args = ("corruptions", run_folder, "--data", small_npz, "--against", trained)
    outcome = hemascope(*args, "--out", out)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "corruptions.json").read_text())
    assert found["relative_error"]["mean"] == pytest.approx(1)
    for network in found["networks"].values():
        assert {len(each) for each in network["accuracy"].values()} == {5}
        mean = np.mean(list(network["accuracy"].values()))
        assert network["mean_accuracy"] == pytest.approx(mean)
    assert (out / "figures" / "corruptions.png").is_file()
    outcome = hemascope("corruptions", trained, *args[2:])
    assert outcome.code == 2
    assert "choose other networks" in outcome.err


def test_a_map_joins_classes_and_leaves_out(
    trained: Path, other_lab: Path, map_file: Path, tmp_path: Path, hemascope: Run
) -> None:
    out = tmp_path / "out"
    args = ("evaluate", trained, "--data", other_lab, "--map", map_file)
    outcome = hemascope(*args, "--out", out)
    assert outcome.code == 0, outcome.err
    results = json.loads((out / "results.json").read_text())
    support = {name: row["support"] for name, row in results["per_class"].items()}
    assert support["neutrophil"] == 12
    assert support["basophil"] == 6
    assert support["erythroblast"] == 0
    assert results["data"] == "cells (folder of images)"
    assert sum(support.values()) == 25
    assert "6 image(s) of classes that are not wanted were left out." in outcome.err


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('smudge = ""', "", "in question: smudge. Say by --map"),
        ('"neutrophil"\nodd', '"neutrofil"\nodd', "did you mean 'neutrophil'"),
        ("baso =", "base =", "no class 'base'; did you mean 'baso'?"),
        ('smudge = ""', 'smudge = ""\nextra = ""', "no class 'extra'"),
        ("[classes]", "crop = 2\n[classes]", "crop"),
        ("[classes]", "[clases]", "did you mean 'classes'"),
    ],
)
def test_a_map_that_does_not_fit_is_refused(
    old: str,
    new: str,
    said: str,
    trained: Path,
    other_lab: Path,
    map_file: Path,
    tmp_path: Path,
    hemascope: Run,
) -> None:
    map_file.write_text(_MAP.replace(old, new))
    outcome = hemascope(
        "evaluate", trained, "--data", other_lab, "--map", map_file, "--out", tmp_path / "out"
    )
    assert outcome.code == 2
    assert said in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_laboratory_with_one_class_is_evaluated(
    trained: Path, other_lab: Path, map_file: Path, tmp_path: Path, hemascope: Run
) -> None:
    lines = ['baso = "basophil"', *(f'{name} = ""' for name in _FOLDERS if name != "baso")]
    map_file.write_text("\ufeff[classes]\n" + "\n".join(lines))
    out = tmp_path / "out"
    args = ("evaluate", trained, "--data", other_lab, "--map", map_file, "--out", out)
    outcome = hemascope(*args)
    assert outcome.code == 0, outcome.err
    assert json.loads((out / "results.json").read_text())["per_class"]["basophil"]["support"] == 6


def test_every_way_to_doubt(trained: Path, small_npz: Path, tmp_path: Path, hemascope: Run) -> None:
    runs, data = [trained], DataSettings(sources=(str(small_npz),))
    for seed in (1, 2):
        config = tmp_path / f"{seed}.toml"
        config.write_text(
            f'name = "tiny"\nseed = {seed}\n[model]\nname = "hemanet"\n[model.options]\nstem = 4\n'
            "widths = [6]\nstrides = [2]\ndropout = 0.5\n[training]\nepochs = 1\n"
            "learning_rate = 0.01\nbatch_size = 16\n"
        )
        runs.append(tmp_path / f"run{seed}")
        fit(load_config(config), load(Request(data)), Output(runs[-1]), Reporter())
    out = tmp_path / "out"
    outcome = hemascope("uncertainty", *runs, "--data", small_npz, "--out", out, "--samples", 5)
    assert outcome.code == 0, outcome.err
    found = json.loads((out / "uncertainty.json").read_text())
    ways = found["ways"]
    assert {name.split(", ")[-1] for name in ways} == {
        "by itself",
        "MC dropout",
        "Laplace",
        "deep ensemble of 3",
    }
    assert ways["tiny-seed1, MC dropout"]["mean_mutual_information"] > 0
    assert ways["tiny-seed1, by itself"]["mean_mutual_information"] is None
    assert ways["deep ensemble of 3"]["num_answers"] == 3
    assert any("paper-cnn-seed0, MC dropout" in note for note in found["notes"])
    assert len(list(out.glob("predictions-test-*.csv"))) == len(ways)
    again = hemascope("uncertainty", runs[1], runs[1], "--data", small_npz, "--out", out)
    assert again.code == 2
