"""`predict`: pictures from anywhere, answers in every format, interrupted and resumed."""

import copy
import csv
import doctest
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

import hemascope as hemascope_package
from conftest import Outcome
from hemascope.core.errors import DataError
from hemascope.core.fit import LaboratoryFit
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.pictures import Picture, read_picture
from hemascope.data.rendered import render
from hemascope.inference import predictor as predictor_module
from hemascope.inference.predictor import Predictor
from hemascope.store.answers import Journal, Row
from hemascope.store.frames import write_fit
from hemascope.workflows.predict import decide_fit

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
        assert "10 classified" in outcome.err
        assert "1 image(s): size differs from the 28 pixels" in outcome.err
        assert "1 file(s) that are not images were passed over (readme.txt)." in outcome.err
    as_csv = rows_of(tmp_path / "out.csv")
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    as_json = [json.loads(line) for line in lines]
    as_parquet = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert list(as_csv[0])[:6] == [
        *("path", "predicted_class", "confidence", "prediction_set", "abstain", "error")
    ]
    assert list(as_csv[0])[-3:] == ["note", "warning", "distance"]
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
            archive.write(folder / f"{i}.png", f"up/{i}.png")
        archive.writestr("notes.txt", "no picture")
    with tarfile.open(tmp_path / "t.tar.gz", "w:gz") as archive:
        for i in range(6):
            archive.add(folder / f"{i}.png", f"{i}.png")
    np.savez(tmp_path / "n.npz", test_images=images, test_labels=np.zeros(6, np.uint8))
    listed = "".join(f"{folder / f'{i}.png'}\n" for i in range(6))
    sources = (folder, f"{folder}/*.png", tmp_path / "z.zip", tmp_path / "t.tar.gz")
    answers: list[list[list[str]]] = []
    for number, source in enumerate((*sources, tmp_path / "n.npz", "-")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed.encode())))
        out = tmp_path / f"{number}.csv"
        outcome = hemascope("predict", source, "--model", exported, "--out", out)
        assert outcome.code == 0, outcome.err
        answers.append([list(row.values())[1:] for row in rows_of(out)])
    assert all(answer == answers[0] for answer in answers)
    assert rows_of(tmp_path / "2.csv")[0]["path"] == f"{tmp_path / 'z.zip'}!/up/0.png"
    assert rows_of(tmp_path / "4.csv")[0]["path"] == f"{tmp_path / 'n.npz'}!/test/0"


def test_paths_that_are_named_twice_are_said_to_count_twice(
    cells: Path, exported: Path, hemascope: Run
) -> None:
    [first, *_] = sorted(cells.rglob("*.png"))
    twice = hemascope("predict", cells, first, first, "--model", exported)
    assert "Note: 2 of the paths are named twice, or lie in a folder" in twice.err
    assert "12 classified" in twice.err
    assert "named twice" not in hemascope("predict", cells, "--model", exported).err


def test_the_packaged_model_that_was_chosen_is_named(
    cells: Path, exported: Path, hemascope: Run
) -> None:
    assert "Model: hemanet." in hemascope("predict", cells).err
    assert "Model: " not in hemascope("predict", cells, "--model", exported).err


def test_a_carriage_return_in_a_name_breaks_no_row(
    cells: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    [first, *_] = sorted(cells.rglob("*.png"))
    first.rename(first.with_name("a\rb.png"))
    out = tmp_path / "out.csv"
    assert hemascope("predict", cells, "--model", exported, "--out", out).code == 0
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 10
    assert sum(row["path"].endswith("a\\rb.png") for row in rows) == 1


def test_a_bad_picture_has_its_row_and_the_rest_goes_on(
    cells: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    (cells / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    out = tmp_path / "out.csv"
    outcome = hemascope("predict", cells, "--model", exported, "--out", out)
    assert outcome.code == 1
    flagged = sum(row["abstain"] == "true" and not row["error"] for row in rows_of(out))
    assert f"10 classified, {flagged} flagged for review" in outcome.err
    assert "Prediction sets: made to hold the true class of " in outcome.err
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
    monkeypatch.setattr("hemascope.inference.stream._BATCH", 3)
    add, calls = Journal.add, []

    def stop(journal: Journal, rows: list[Row]) -> None:
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
    assert "another model, settings or paths" in outcome.err
    [*_, last] = sorted(cells.rglob("*.png"))
    outcome = hemascope("predict", last, "--model", exported, "--out", out, "--resume")
    assert outcome.code == 2  # of other images
    [first, *_] = sorted(cells.rglob("*.png"))
    times = first.stat().st_atime_ns, first.stat().st_mtime_ns
    os.utime(first, ns=(times[0], part.stat().st_mtime_ns + 10**9))
    outcome = hemascope(*args, out, "--resume")
    assert outcome.code == 2
    assert f"{first} was changed after the interrupted run had answered it" in outcome.err
    os.utime(first, ns=times)
    outcome = hemascope(*args, out, "--resume")
    assert outcome.code == 0, outcome.err
    assert "after 6 images" in outcome.err
    assert "10 classified" in outcome.err  # all, not those of this run alone
    assert "no longer there" not in outcome.err
    assert out.read_bytes() == whole.read_bytes()
    assert hemascope(*args, out).code == 2  # it is there
    assert hemascope(*args, out, "--overwrite").code == 0


def test_a_resumed_run_says_which_answers_are_of_images_that_are_gone(
    cells: Path, exported: Path, tmp_path: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hemascope.inference.stream._BATCH", 3)
    args = ("predict", cells, "--model", exported, "--out", tmp_path / "out.csv")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(Journal, "finish", stop)
        assert hemascope(*args).code == 130
    min(cells.rglob("*.png")).unlink()
    outcome = hemascope(*args, "--resume")
    assert outcome.code == 0, outcome.err
    assert "1 of the answers, from before the interruption, are of images that are" in outcome.err


def test_the_least_confident_answers_come_first_if_asked(
    cells: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    (cells / "a" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    args = ("predict", cells, "--model", exported)
    for suffix in (".csv", ".jsonl"):
        assert hemascope(*args, "--out", tmp_path / f"plain{suffix}").code == 1
        out = tmp_path / f"sorted{suffix}"
        assert hemascope(*args, "--out", out, "--sort", "confidence").code == 1
        plain, ordered = (p.read_text().splitlines() for p in (tmp_path / f"plain{suffix}", out))
        assert sorted(plain) == sorted(ordered)
    rows = rows_of(tmp_path / "sorted.csv")
    assert rows[0]["error"]
    confidences = [float(row["confidence"]) for row in rows[1:]]
    assert confidences == sorted(confidences)
    table = hemascope(*args, "--sort", "confidence").out
    assert table.index("unreadable") < table.index(" % ")
    options = ("--out", "-", "--format", "jsonl", "--sort", "confidence", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "hemascope", *map(str, (*args, *options))],
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    found = [json.loads(line)["confidence"] for line in done.stdout.splitlines()]
    assert found[1:] == confidences


def test_a_narrow_terminal_gets_lines(
    cells: Path, exported: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = ("predict", cells, "--model", exported, "--sort", "confidence")
    wide = hemascope(*args).out
    monkeypatch.setenv("COLUMNS", "40")
    narrow = hemascope(*args).out
    assert "prediction set" in wide
    assert "prediction set" not in narrow
    said = re.findall(r"^  (.+) \d+\.\d %$", narrow, re.MULTILINE)
    assert len(said) == 10
    assert set(said) <= set(BLOOD_CELLS.names)
    assert "abstain: " in narrow


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
    assert "1 image(s): taken as already cropped to the cell" in done.stderr
    assert len(rows_of(tmp_path / "out.csv")) == 10
    assert len(list((tmp_path / "why").iterdir())) == 10


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nothing-here.png",), "there is no file or folder nothing-here.png"),
        (("nothing/*.png",), "no file matches"),
        (("CELLS", "--out", "out.txt"), "must end in .csv, .jsonl"),
        (("CELLS", "--resume"), "--resume: it continues an --out file"),
        (
            ("CELLS", "--coverage", "0.5"),
            "--coverage: it is 0.5; the model's prediction sets were fitted for 0.95 and 0.99",
        ),
        (("CELLS", "--crop", "0"), "--crop: it is 0; give a number above 0"),
        (("CELLS", "--model", "hemanot"), "ships with hemascope (hemanet, hemanet-64-labs)"),
    ],
)
def test_refused(args: tuple[str, ...], said: str, cells: Path, hemascope: Run) -> None:
    outcome = hemascope("predict", *(cells if arg == "CELLS" else arg for arg in args))
    assert outcome.code == 2
    assert said in outcome.err


@pytest.fixture(scope="module")
def predictor(exported: Path) -> Predictor:
    return Predictor(exported)


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return render(np.array([5]), seed=9)[0]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_predictor_takes_a_picture_in_any_form(
    predictor: Predictor, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    import torch

    path = tmp_path / "größe 1.png"
    path.write_bytes(_png(pixels))
    [expected] = predictor.predict(path)
    assert not expected.error
    opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    with path.open("rb") as file, Image.open(path) as picture:
        forms: list[Any] = [
            *(str(path), _png(pixels), bytearray(_png(pixels)), io.BytesIO(_png(pixels))),
            *(file, picture, pixels, np.asfortranarray(pixels), torch.from_numpy(pixels)),
        ]
        for form in forms:
            [answer] = predictor.predict(form)
            assert answer == expected, type(form)
        forms[3].seek(0)
        file.seek(0)
        assert predictor.predict(forms) == [expected] * len(forms)
    [answer] = predictor.predict(opaque)
    assert answer.probs == expected.probs
    assert predictor.predict(np.stack([pixels, pixels])) == [expected] * 2
    tensor: Any = torch.from_numpy(np.stack([pixels] * 3))
    assert predictor.predict(tensor) == [expected] * 3
    assert predictor.predict([]) == []
    np.testing.assert_allclose(predictor.predict_proba([path])[0], expected.probs)


def test_a_gray_picture_is_flagged_however_it_is_given(
    predictor: Predictor, pixels: NDArray[np.uint8]
) -> None:
    gray = pixels.mean(axis=2).astype(np.uint8)
    for form in (gray, gray[..., None], np.dstack([gray] * 3), Image.fromarray(gray)):
        with pytest.warns(UserWarning, match="1 of 1: no color"):
            [answer] = predictor.predict(form)
        assert answer.abstain
        assert "no color" in answer.note


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (np.zeros((3, 28, 28), np.uint8), "channels first: transpose it"),
        (np.zeros((1, 28, 28), np.uint8), "channels first: transpose it"),
        (np.zeros((28, 28, 2), np.uint8), r"shape \(28, 28, 2\)"),
        (np.zeros((28, 28, 3)), "array of type float64"),
        (np.zeros((0, 28, 3), np.uint8), "without pixels"),
        (b"not a picture", "unknown image format; save it"),
        (b"", "file is empty"),
        ("nowhere.png", "No such file"),
        (Path(), "Is a directory"),
        (None, "expected"),
        (5, "expected"),
        ("a\0b.png", "zero byte"),
        (Image.new("RGB", (0, 0)), "image of 0x0 pixels"),
    ],
)
def test_one_bad_picture_has_its_own_error(
    predictor: Predictor, pixels: NDArray[np.uint8], form: Any, reason: str
) -> None:
    first, bad, last = predictor.predict([pixels, form, pixels])
    assert re.search(reason, bad.error)
    assert bad.abstain
    assert first == last
    assert not first.error
    with pytest.raises(DataError, match="image 1 cannot be read"):
        predictor.predict_proba([pixels, form])


def test_a_closed_file_fails_alone(predictor: Predictor, pixels: NDArray[np.uint8]) -> None:
    file = io.BytesIO(b"x")
    file.close()
    first, bad = predictor.predict([pixels, file])
    assert not first.error
    assert "closed file" in bad.error


def test_bytes_and_paths_of_any_type_are_one_picture(
    predictor: Predictor, pixels: NDArray[np.uint8], tmp_path: Path
) -> None:
    Image.fromarray(pixels).save(tmp_path / "cell.png")
    expected = predictor.predict(tmp_path / "cell.png")
    assert not expected[0].error
    assert predictor.predict(memoryview((tmp_path / "cell.png").read_bytes())) == expected
    with os.scandir(tmp_path) as entries:
        assert [predictor.predict(one) for one in entries] == [expected]


def test_a_batch_with_channels_first_is_refused_picture_by_picture(predictor: Predictor) -> None:
    answers = predictor.predict(np.zeros((4, 3, 28, 28), np.uint8))
    assert len(answers) == 4
    assert all("channels first" in answer.error for answer in answers)


@pytest.mark.parametrize("what", [5, None, np.uint8(3), np.zeros(7, np.uint8)])
def test_what_is_no_picture_at_all_is_one_sentence(predictor: Predictor, what: Any) -> None:
    answers = predictor.predict(what)
    assert all(answer.error for answer in answers)
    assert answers


def test_what_was_changed_is_warned_of_once(
    predictor: Predictor, pixels: NDArray[np.uint8]
) -> None:
    large = pixels.repeat(3, axis=0).repeat(3, axis=1)
    with pytest.warns(UserWarning, match=r"2 of 3: size differs from the 28 pixels") as warned:
        answers = predictor.predict([pixels, large, large])
    assert len(warned) == 1
    assert Path(warned[0].filename) == Path(__file__)  # where it was called
    assert [bool(answer.note) for answer in answers] == [False, True, True]


def test_a_predictor_can_be_copied_and_sent_to_other_processes(
    exported: Path, pixels: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(exported.parent)
    one = Predictor(exported.name, coverage=0.95)
    monkeypatch.chdir(tmp_path)  # where a relative path would be another
    expected = one.predict(pixels)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):  # noqa: S301 - our own
        assert other.predict(pixels) == expected
        assert other.coverage == 0.95
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        assert pool.submit(one.predict, pixels).result(timeout=60) == expected


def test_an_image_on_standard_input_gives_one_answer(
    pixels: NDArray[np.uint8], exported: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(_png(pixels))))
    outcome = hemascope("predict", "-", "--model", exported)
    assert outcome.code == 0, outcome.err
    assert "1 classified" in outcome.err


def test_a_list_with_a_byte_order_mark_is_read(
    cells: Path, exported: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "\r\n".join(map(str, sorted(cells.rglob("*.png")))).encode("utf-8-sig")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    outcome = hemascope("predict", "-", "--model", exported)
    assert outcome.code == 0, outcome.err
    assert "10 classified" in outcome.err


def test_no_image_at_all_is_exit_2(
    tmp_path: Path, exported: Path, hemascope: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "labels.csv").write_text("path,label")
    for source in (tmp_path / "x", "-"):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
        outcome = hemascope("predict", source, "--model", exported, "--out", tmp_path / "o.csv")
        assert outcome.code == 2
        assert f"there is no image in {source}" in outcome.err
        assert not (tmp_path / "o.csv").exists()
        assert not list(tmp_path.glob(".*.part"))


def test_answers_on_standard_output_are_the_same_csv(
    cells: Path, exported: Path, tmp_path: Path
) -> None:
    program = "from hemascope.__main__ import main; main()"
    command = [sys.executable, "-c", program, "predict", cells, "--model", exported, "--out"]
    printed = subprocess.run([*command, "-"], capture_output=True, check=True)
    subprocess.run([*command, tmp_path / "o.csv"], capture_output=True, check=True)
    assert printed.stdout == (tmp_path / "o.csv").read_bytes()
    assert b"10 classified" in printed.stderr


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


@pytest.fixture(scope="module")
def others() -> list[bytes]:
    """Cells of a laboratory unlike those of training, of a size whose frame is known."""
    images = render(np.arange(64) % 8, seed=4)
    return [_png(np.asarray(Image.fromarray(one).resize((64, 64)))) for one in images]


@pytest.mark.filterwarnings("ignore:.*last layer was moved")
def test_streams_are_read_once_and_looked_at_as_often_as_the_model_for_photographs_wants(
    others: list[bytes], tmp_path: Path
) -> None:
    predictor = Predictor()
    files = [io.BytesIO(content) for content in others]
    assert predictor.predict(files) == predictor.predict(others)
    path = tmp_path / "text.txt"
    path.write_text("cells")
    with path.open() as text:
        given: Any = text
        [answer] = predictor.predict([given])
    assert "binary" in answer.error


@pytest.mark.filterwarnings("ignore:.*last layer was moved")
def test_a_frame_file_of_a_layer_alone_answers_a_whole_folder(
    others: list[bytes], tmp_path: Path
) -> None:
    moved = Predictor().decide([lambda one=one: read_picture(one) for one in others])
    assert moved is not None
    assert moved.layer is not None
    file = tmp_path / "own.json"
    write_fit(file, LaboratoryFit(layer=moved.layer))
    given = Predictor(frame=str(file))
    assert given.move(64, lambda rows: np.empty((len(rows), 64, 64, 3), np.uint8)) is None
    assert given.fit([], None) == LaboratoryFit(layer=moved.layer)
    found = given.predict(others)
    assert found == Predictor(frame=str(file)).predict(others[:1]) + found[1:]
    assert all("the last layer was moved" in answer.note for answer in found)


@pytest.mark.filterwarnings("ignore:.*last layer was moved")
def test_a_moved_layer_answers_in_eight_views_unless_another_number_is_given(
    others: list[bytes],
) -> None:
    by_itself, eight, one = (Predictor(views=views).predict(others) for views in (None, 8, 1))
    assert by_itself == eight
    assert by_itself != one
    assert by_itself[0].note == one[0].note
    few = others[:3]  # which nothing is moved to
    assert (
        Predictor().predict(few)
        == Predictor(views=1).predict(few)
        != Predictor(views=8).predict(few)
    )


def test_another_last_layer_makes_another_model() -> None:
    predictor = Predictor()
    assert predictor.digest == predictor.graph.sha256
    predictor.info = predictor.info.model_copy(update={"head_sha256": "of another"})
    first = predictor.digest
    predictor.info = predictor.info.model_copy(update={"guard_sha256": "of another"})
    assert len({predictor.graph.sha256, first, predictor.digest}) == 3


def test_a_frame_file_of_other_photographs_does_not_stay_beside_answers(
    others: list[bytes], tmp_path: Path, hemascope: Run
) -> None:
    for number, content in enumerate(others[:3]):
        (tmp_path / f"{number}.png").write_bytes(content)
    kept, out = tmp_path / "answers.csv.frame.json", tmp_path / "answers.csv"
    kept.write_text("{}")
    args = ("predict", *sorted(tmp_path.glob("*.png")), "--model", "hemanet-64-labs", "--out", out)
    assert hemascope(*args, "--resume").code == 0
    assert not kept.exists()


def test_folders_are_looked_at_to_their_end(tmp_path: Path) -> None:
    for number in range(1500):
        Image.new("RGB", (number + 10, 10)).save(tmp_path / f"{number:04}.png")
    seen: list[int] = []

    class Looking(Predictor):
        def decide(self, reads: Sequence[Callable[[], Picture]]) -> None:
            seen.extend(read().image.width - 10 for read in reads)

    decide_fit(Looking(), iter(()), [str(tmp_path)])
    assert len(seen) == 1000
    assert seen[-1] > 1490
    seen.clear()
    first = str(tmp_path / "0000.png")
    decide_fit(Looking(), iter(()), [first, first, f"{tmp_path}/./0001.png"])
    assert seen == [0, 1]  # what is named twice decides once
