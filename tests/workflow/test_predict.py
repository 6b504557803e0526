"""`predict`: pictures from anywhere, answers in every format, interrupted and resumed."""

import csv
import doctest
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import hemascope as hemascope_package
from conftest import Outcome
from hemascope.data.rendered import render
from hemascope.inference import predictor as predictor_module
from hemascope.inference.predictor import Predictor
from hemascope.store.answers import Journal

Run = Callable[..., Outcome]


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Ten rendered cells in two folders, one of them of another size, and a text beside them."""
    folder = tmp_path / "cells"
    for i, image in enumerate(render(np.arange(10) % 8, seed=3)):
        place = folder / ("a" if i < 5 else "b")
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image)
        (picture.resize((90, 80)) if i == 7 else picture).save(place / f"cell-{i}.png")
    (folder / "readme.txt").write_text("not a cell")
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_answers_in_every_format(
    cells: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        outcome = hemascope("predict", cells, "--model", exported, "--out", tmp_path / name)
        assert outcome.code == 0, outcome.err
        assert "10 answered" in outcome.err
        assert "1 are of another size" not in outcome.err  # this model crops nothing
    as_csv = rows_of(tmp_path / "out.csv")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    as_json = [json.loads(line) for line in lines]
    as_parquet = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert list(as_csv[0])[:6] == [
        *("path", "predicted_class", "confidence", "prediction_set", "abstain", "error")
    ]
    assert as_json == as_parquet
    assert [row["path"] for row in as_csv] == sorted(map(str, cells.rglob("*.png")))
    for one, other in zip(as_csv, as_json, strict=True):
        assert one["predicted_class"] == other["predicted_class"]
        assert float(one["confidence"]) == other["confidence"]
        assert [name for name in one["prediction_set"].split("|") if name] == other[
            "prediction_set"
        ]
        assert one["abstain"] == str(other["abstain"]).lower()
        probs = [float(value) for key, value in one.items() if key.startswith("prob:")]
        assert len(probs) == 8
        assert sum(probs) == pytest.approx(1, abs=1e-5)
        assert max(probs) == float(one["confidence"])
    assert not list(tmp_path.glob(".*.part"))


def test_every_kind_of_source_gives_the_same_answers(
    exported: Path, tmp_path: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = render(np.arange(6), seed=5)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        for i in range(6):
            archive.write(folder / f"{i}.png", f"../up/{i}.png")  # nothing is unpacked
        archive.writestr("notes.txt", "no picture")
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        for i in range(6):
            archive.add(folder / f"{i}.png", f"{i}.png")
    np.savez(tmp_path / "n.npz", test_images=images, test_labels=np.zeros(6, np.uint8))
    listed = "".join(f"{folder / f'{i}.png'}\n" for i in range(6))
    sources = (folder, f"{folder}/*.png", tmp_path / "z.zip", tmp_path / "t.tar.gz")
    answers: list[list[list[str]]] = []
    for number, source in enumerate((*sources, tmp_path / "n.npz", "-")):
        monkeypatch.setattr("sys.stdin", io.StringIO(listed))
        out = tmp_path / f"{number}.csv"
        outcome = hemascope("predict", source, "--model", exported, "--out", out)
        assert outcome.code == 0, outcome.err
        answers.append([list(row.values())[1:] for row in rows_of(out)])
    assert all(answer == answers[0] for answer in answers)
    assert rows_of(tmp_path / "2.csv")[0]["path"] == f"{tmp_path / 'z.zip'}!/../up/0.png"
    assert rows_of(tmp_path / "4.csv")[0]["path"] == f"{tmp_path / 'n.npz'}!/test/0"


def test_a_bad_picture_has_its_row_and_the_rest_goes_on(
    cells: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    (cells / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    out = tmp_path / "out.csv"
    outcome = hemascope("predict", cells, "--model", exported, "--out", out)
    assert outcome.code == 1
    assert "10 answered" in outcome.err
    assert "1 could not be read" in outcome.err
    [bad] = [row for row in rows_of(out) if row["error"]]
    assert bad["path"].endswith("broken.jpg")
    assert bad["predicted_class"] == bad["confidence"] == bad["prob:platelet"] == ""
    assert bad["abstain"] == "true"
    outcome = hemascope("predict", cells, "--model", exported)
    assert outcome.code == 1
    assert "unreadable" in outcome.out


def test_a_resumed_run_ends_as_one_that_was_never_stopped(
    cells: Path, exported: Path, tmp_path: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    args = ("predict", cells, "--model", exported, "--out")
    assert hemascope(*args, whole).code == 0
    monkeypatch.setattr("hemascope.workflows.predict._BATCH", 3)
    add, calls = Journal.add, []

    def stop(journal: Journal, rows: list[dict[str, object]]) -> None:
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(rows)
        add(journal, rows)

    with monkeypatch.context() as stopped:
        stopped.setattr(Journal, "add", stop)
        outcome = hemascope(*args, out)
    assert outcome.code == 130
    assert not out.exists()
    [part] = tmp_path.glob(".out.csv.*.part")
    part.write_bytes(part.read_bytes() + b'{"path": "half a li')  # as a killed process leaves it
    outcome = hemascope(*args, out)
    assert outcome.code == 2
    assert "--resume" in outcome.err
    outcome = hemascope(*args, out, "--resume", "--views", "8")
    assert outcome.code == 2
    assert "other settings" in outcome.err
    outcome = hemascope(*args, out, "--resume")
    assert outcome.code == 0, outcome.err
    assert "after 6 pictures" in outcome.err
    assert "4 answered" in outcome.err
    assert out.read_bytes() == whole.read_bytes()
    assert hemascope(*args, out).code == 2  # it is there
    assert hemascope(*args, out, "--overwrite").code == 0


def test_explain_draws_every_answer(
    cells: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    outcome = hemascope("predict", cells, "--model", exported, "--explain", tmp_path / "why")
    assert outcome.code == 0, outcome.err
    drawn = sorted(path.name for path in (tmp_path / "why").iterdir())
    assert drawn[0] == "000000-cell-0.png"
    assert len(drawn) == 10
    with Image.open(tmp_path / "why" / drawn[0]) as picture:
        cell, overlay = (np.asarray(picture.crop((x, 0, x + 224, 224))) for x in (0, 224))
    assert (cell != overlay).any()
    again = hemascope("predict", cells, "--model", exported, "--explain", tmp_path / "why")
    assert again.code == 2
    inside = hemascope("predict", cells, "--model", exported, "--explain", cells / "why")
    assert inside.code == 2
    assert "lies inside" in inside.err


def test_the_packaged_model_needs_no_torch(cells: Path, tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'scipy', 'matplotlib', 'safetensors', 'sklearn'):\n"
        "    sys.modules[name] = None\n"
        "from hemascope.__main__ import main\n"
        f"sys.argv = ['hemascope', 'predict', {str(cells)!r}, '--out', 'out.csv', "
        "'--explain', 'why']\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "1 are of another size" in done.stderr
    assert len(rows_of(tmp_path / "out.csv")) == 10
    assert len(list((tmp_path / "why").iterdir())) == 10


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nothing-here.png",), "there is no file or folder nothing-here.png"),
        (("nothing/*.png",), "no file matches"),
        (("CELLS", "--out", "out.txt"), "must end in .csv, .jsonl"),
        (("CELLS", "--resume"), "--resume goes on with an --out"),
        (("CELLS", "--coverage", "0.5"), "fitted for 0.95 and 0.99"),
        (("CELLS", "--crop", "0"), "give a share above 0"),
        (("CELLS", "--model", "hemanot"), "ships with hemascope (hemanet)"),
    ],
)
def test_refused(args: tuple[str, ...], said: str, cells: Path, hemascope: Run) -> None:
    outcome = hemascope("predict", *(cells if arg == "CELLS" else arg for arg in args))
    assert outcome.code == 2
    assert said in outcome.err


def test_predictor_takes_paths_pictures_and_arrays(cells: Path, exported: Path) -> None:
    predictor = Predictor(exported)
    path = next(cells.rglob("cell-3.png"))
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
        of_picture = predictor.predict(picture)
    [expected] = predictor.predict(path)
    assert of_picture == predictor.predict(pixels) == predictor.predict([str(path)]) == [expected]
    assert predictor.predict(np.stack([pixels, pixels])) == [expected] * 2
    np.testing.assert_allclose(predictor.predict_proba([path])[0], expected.probs)
    assert predictor.predict([]) == []


@pytest.mark.parametrize("module", [hemascope_package, predictor_module])
def test_the_examples_in_the_documentation_run(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_the_package_offers_its_classes_without_importing_them() -> None:
    code = (
        "import sys, hemascope\n"
        "assert not {'torch', 'numpy', 'onnxruntime'} & set(sys.modules)\n"
        "assert hemascope.load('hemanet').__class__ is hemascope.Predictor\n"
        "assert 'torch' not in sys.modules\n"
        "assert hemascope.CellClassifier().preset == 'hemanet-tiny'\n"
        "assert not hasattr(hemascope, 'Classifier')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
