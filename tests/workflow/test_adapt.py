"""`adapt`: a model fitted to a laboratory, and `predict` with a frame of its own."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome
from hemascope.data.collections import BLOOD_CELLS
from hemascope.data.rendered import render
from hemascope.inference.predictor import Predictor
from hemascope.inference.torch_engine import TorchEngine, load_model, pick_device
from hemascope.store.model_folder import load_head, load_info
from hemascope.store.predictions import read_predictions

Run = Callable[..., Outcome]
OTHER = ("lymph", "neutro", "strange")


def save(folder: Path, labels: list[int], names: tuple[str, ...], seed: int) -> Path:
    """Rendered cells in other colors, in class folders; the file's name tells the patient."""
    for i, image in enumerate(render(np.array(labels), seed=seed)):
        place = folder / names[labels[i]]
        place.mkdir(parents=True, exist_ok=True)
        stained = 255 * (image / 255) ** np.array([1.6, 1.2, 0.8])
        Image.fromarray(stained.astype(np.uint8)).save(place / f"p{i % 7}_{i}.png")
    return folder


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = [i % 4 for i in range(80)]
    return save(tmp_path_factory.mktemp("lab") / "cells", labels, BLOOD_CELLS.names, seed=9)


def test_a_few_labels_make_a_model_of_the_laboratory(
    laboratory: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    out = tmp_path / "adapted"
    outcome = hemascope(
        *("adapt", exported, "--data", laboratory, "--out", out, "--group-from", r"^(p\d)_")
    )
    assert outcome.code == 0, outcome.err
    assert "7 groups, kept apart" in outcome.out
    assert "balanced accuracy before" in outcome.out
    info = load_info(out)
    assert info.class_names == BLOOD_CELLS.names[:4]
    assert "adapted to" in info.trained_on.title
    assert info.settings.name.endswith("-adapted")
    assert re.search(r"abstains on .* of these cells; of the others", outcome.out)
    held_out = save(tmp_path / "more", [i % 4 for i in range(80)], BLOOD_CELLS.names, seed=10)
    rights: list[float] = []
    for model in (exported, out):
        said = Predictor(model)
        paths = sorted(held_out.rglob("*.png"))
        answers = said.predict([str(path) for path in paths])
        names = [answer.predicted_class for answer in answers]
        right = [n == p.parent.name for n, p in zip(names, paths, strict=True)]
        rights.append(sum(right) / len(right))
    assert rights[1] > rights[0]
    assert rights[1] > 0.7
    report = hemascope("evaluate", out, "--data", held_out, "--out", tmp_path / "evaluated")
    assert report.code == 0, report.err
    results = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    assert results["accuracy"] == pytest.approx(rights[1])
    forgotten = ", ".join(BLOOD_CELLS.names[4:])
    assert f"the adapted model no longer knows {forgotten}: such cells are set apart" in outcome.err
    guard = Predictor(out).guard
    assert guard is not None
    assert set(guard.kept_labels.tolist()) == set(guard.val_labels.tolist()) == {0, 1, 2, 3}
    card = (out / "MODEL_CARD.md").read_text()
    assert "Adapted to" in card
    assert "Base model" in card
    judged = read_predictions(out / "predictions-cross-validated.csv")
    assert len(set(judged.ids)) == len(judged.labels) == 80
    recalls = [(judged.predicted == c)[judged.labels == c].mean() for c in range(4)]
    [after] = re.findall(r"balanced accuracy after, in one view: ([\d.]+) %", outcome.out)
    assert 100 * np.mean(recalls) == pytest.approx(float(after), abs=0.06)


def test_copies_and_known_cells_do_not_pass_for_more(
    laboratory: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    """The same cells three times over; and the same cells again, for a model adapted to them."""
    cells = tmp_path / "cells"
    for path in sorted(laboratory.rglob("*.png")):
        for copy in range(3):
            target = cells / path.parent.name / f"{copy}_{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    first, again = tmp_path / "first", tmp_path / "again"
    outcome = hemascope("adapt", exported, "--data", cells, "--out", first)
    assert outcome.code == 0, outcome.err
    said = "160 of 240 labeled images are copies of others (equal pixels) and were left out"
    assert said in outcome.err
    assert "Cross-validated on 80 labeled cells" in outcome.out
    assert said in (first / "report.html").read_text()
    calibration = load_info(first).calibration
    assert calibration is not None
    assert calibration.num_images == 80
    outcome = hemascope("adapt", first, "--data", laboratory, "--out", again)
    assert outcome.code == 0, outcome.err
    said = "80 of these 80 images are among those that the model was trained on or adapted to"
    assert said in outcome.err
    assert said in (again / "MODEL_CARD.md").read_text()


def test_the_old_classes_stay_if_asked(
    laboratory: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    out = tmp_path / "kept"
    outcome = hemascope("adapt", exported, "--data", laboratory, "--out", out, "--keep")
    assert outcome.code == 0, outcome.err
    assert load_info(out).class_names == BLOOD_CELLS.names
    assert "val images" in outcome.out
    assert "deeper layers were not tried: give --own-data" in outcome.out


def test_deeper_layers_are_fitted_where_cross_validation_supports_it(
    exported_with_weights: Path, cells_npz: Path, tmp_path: Path, hemascope: Run
) -> None:
    """Colors that the network has never seen, and enough cells of them."""
    labels = [i % 4 for i in range(120)]
    cells = save(tmp_path / "cells", labels, BLOOD_CELLS.names, seed=11)
    out = tmp_path / "deeper"
    outcome = hemascope("adapt", exported_with_weights, "--data", cells, "--out", out)
    assert outcome.code == 0, outcome.err
    assert re.search(r"supports fitting the last [1-9] block\(s\)", outcome.out), outcome.out
    info, _ = load_model(out)  # its weights are those of the graph
    assert not info.head_file
    answers = Predictor(out).predict([str(path) for path in sorted(cells.rglob("*.png"))])
    torch_says = TorchEngine(load_model(out)[1], device=pick_device("cpu"))
    images = np.stack([np.asarray(Image.open(p)) for p in sorted(cells.rglob("*.png"))])
    said = torch_says.logits(images).argmax(axis=1)
    assert [a.predicted_class for a in answers] == [info.class_names[i] for i in said]
    assert np.mean([answer.warning != "" for answer in answers]) <= 0.05
    others = save(tmp_path / "others", labels, BLOOD_CELLS.names, seed=12)
    unseen = Predictor(out).predict([str(path) for path in sorted(others.rglob("*.png"))])
    assert np.mean([answer.warning != "" for answer in unseen]) <= 0.12
    kept = tmp_path / "kept"
    options = ("--keep", "--own-data", cells_npz)
    outcome = hemascope("adapt", exported_with_weights, "--data", cells, "--out", kept, *options)
    assert outcome.code == 0, outcome.err
    assert load_info(kept).class_names == BLOOD_CELLS.names
    assert "cross-validation supports" in outcome.out
    forgotten = re.search(r"val images: ([\d.]+) % before, ([\d.]+) % after", outcome.out)
    assert forgotten
    outcome = hemascope(
        "adapt", exported_with_weights, "--data", cells, "--out", tmp_path / "x", *options[1:]
    )
    assert outcome.code == 2
    assert "--own-data" in outcome.err


def test_without_labels_framing_and_guard_are_fitted(
    laboratory: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    out = tmp_path / "guarded"
    outcome = hemascope("adapt", exported, "--data", laboratory, "--out", out, "--unlabeled")
    assert outcome.code == 0, outcome.err
    info = load_info(out)
    assert info.class_names == BLOOD_CELLS.names
    assert info.settings.name.endswith("-adapted")
    assert "the last layer, which was moved to this laboratory's cells" in outcome.out
    assert "Without labels nothing says" in (out / "MODEL_CARD.md").read_text()
    paths = sorted(laboratory.rglob("*.png"))
    (before, right), (after, more) = (
        (
            np.mean([a.warning != "" for a in answers]),
            np.mean(
                [a.predicted_class == p.parent.name for a, p in zip(answers, paths, strict=True)]
            ),
        )
        for answers in (Predictor(m).predict([str(p) for p in paths]) for m in (exported, out))
    )
    assert after <= 0.05
    assert after <= before
    assert more >= right
    again = hemascope("adapt", out, "--data", laboratory, "--out", tmp_path / "b", "--unlabeled")
    assert "the last layer are unchanged" in again.out  # it knows this laboratory now


def test_suggested_cells_become_labels(
    laboratory: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    out = tmp_path / "suggested"
    outcome = hemascope("adapt", exported, "--data", laboratory, "--out", out, "--suggest", "24")
    assert outcome.code == 0, outcome.err
    with (out / "suggested.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({row["path"] for row in rows}) == 24
    assert all((out / row["thumbnail"]).is_file() for row in rows)
    for row in rows:
        row["label"] = Path(row["path"]).parent.name
    with (out / "suggested.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    args = ("adapt", exported, "--data", out / "suggested.csv", "--out", tmp_path / "adapted")
    outcome = hemascope(*args)
    assert outcome.code == 0, outcome.err
    assert "suggested for labeling" in outcome.err
    assert "not used" not in outcome.err
    assert "suggested for labeling" in (tmp_path / "adapted" / "MODEL_CARD.md").read_text()
    archive = shutil.make_archive(str(tmp_path / "cells"), "zip", laboratory)
    for data, said in ((archive, "is not a file by itself"), (args[3], "is a table")):
        outcome = hemascope(
            "adapt", exported, "--data", data, "--out", tmp_path / "x", "--suggest", "2"
        )
        assert outcome.code == 2
        assert said in outcome.err


def test_cells_of_one_case_make_a_model_that_says_what_it_was_judged_by(
    exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    folder = save(tmp_path / "one", [i % 2 for i in range(24)], BLOOD_CELLS.names, seed=11)
    rows = "".join(f"{p},{p.parent.name},case-1\n" for p in sorted(folder.rglob("*.png")))
    (tmp_path / "cells.csv").write_text(f"path,label,group\n{rows}")
    args = ("adapt", exported, "--data", tmp_path / "cells.csv", "--out", tmp_path / "adapted")
    outcome = hemascope(*args)
    assert outcome.code == 0, outcome.err
    assert "all cells are of one group (case-1)" in outcome.err
    assert "one group" in (tmp_path / "adapted" / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("labels", "said"),
    [([2] * 12, "of one class"), ([0] * 9 + [1], "too few labeled cells")],
)
def test_too_few_labels_are_refused(
    labels: list[int], said: str, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    folder = save(tmp_path / "few", labels, OTHER, seed=1)
    outcome = hemascope("adapt", exported, "--data", folder, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert said in outcome.err
    assert not (tmp_path / "out" / "artifact.json").exists()


def test_one_image_and_half_labeled_data_are_refused(
    exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    loose, labeled = tmp_path / "loose", tmp_path / "labeled"
    for folder, count in ((loose, 1), (labeled / "monocyte", 2)):
        folder.mkdir(parents=True)
        for number in range(count):
            image = Image.fromarray(render(np.array([5]), seed=number)[0])
            image.resize((64, 64)).save(folder / f"{number}.png")
    outcome = hemascope("adapt", exported, "--data", loose, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "has one image; give at least two" in outcome.err
    both = ("--data", labeled, "--data", loose)
    outcome = hemascope("adapt", exported, *both, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "has no labels and the rest of the data has" in outcome.err
    assert not (tmp_path / "out").exists()


def test_pictures_without_cells_are_refused(exported: Path, tmp_path: Path, hemascope: Run) -> None:
    folder = tmp_path / "blank"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (60, 60), (250, 250, 250 - i)).save(folder / f"{i}.png")
    outcome = hemascope("adapt", exported, "--data", folder, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "no cell is found" in outcome.err


@pytest.mark.filterwarnings("ignore:.*last layer was moved")
def test_a_laboratory_unlike_training_is_answered_by_a_layer_moved_to_it(
    laboratory: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    def predict(*args: str | Path) -> list[dict[str, str]]:
        out = tmp_path / "answers.csv"
        outcome = hemascope("predict", *args, "--model", exported, "--out", out, "--overwrite")
        assert outcome.code == 0, outcome.err
        assert ("last layer was moved to 80 of them" in outcome.err) == ("auto" in args)
        with out.open(newline="") as file:
            return list(csv.DictReader(file))

    def right(rows: list[dict[str, str]]) -> float:
        return float(np.mean([row["predicted_class"] in row["path"] for row in rows]))

    as_trained = predict(laboratory, "--frame", "whole")
    assert not any("moved" in row["note"] for row in as_trained)
    moved = predict(laboratory, "--frame", "auto")
    assert all("the last layer was moved to this laboratory" in row["note"] for row in moved)
    assert right(moved) > right(as_trained)
    frame = (tmp_path / "answers.csv.frame.json").rename(tmp_path / "frame.json")
    few = sorted(laboratory.rglob("*.png"))[:9]
    rows = {row["path"]: row for row in moved}
    for row in predict(*few, "--frame", frame):
        assert row["predicted_class"] == rows[row["path"]]["predicted_class"]
        assert float(row["confidence"]) == pytest.approx(float(rows[row["path"]]["confidence"]))
    [warned] = Predictor(exported, frame=str(frame)).predict(few[0])
    assert warned.note == rows[str(few[0])]["note"]

    for how, expected in ((("auto",), moved), ((frame,), moved), (("auto", "--as-trained"), None)):
        out = tmp_path / f"evaluated-{len(how)}-{how[0] == frame}"
        outcome = hemascope(
            "evaluate", exported, "--data", laboratory, "--out", out, "--frame", *how
        )
        assert outcome.code == 0, outcome.err
        results = json.loads((out / "results.json").read_text())
        assert results["accuracy"] == pytest.approx(right(expected or as_trained))
        is_said = any("the last layer was moved" in said for said in results["warnings"])
        assert is_said == (how[-1] != "--as-trained")
        assert results["is_moved"] == is_said
        assert results["num_views"] == (8 if is_said else 1)
    both = sorted(tmp_path.glob("evaluated-*-False"))
    compared = hemascope("compare", *both, "--out", tmp_path / "compared")
    assert compared.code == 0, compared.err
    assert ", 8 views, moved last layer" in compared.out
    transferred = hemascope("transfer", exported, "--data", laboratory, "--frame", frame)
    assert transferred.code == 0, transferred.err
    assert "of the frame file the framing is used, not its last layer" in transferred.err

    other = tmp_path / "other"
    made = hemascope("adapt", exported, "--data", laboratory, "--out", other, "--unlabeled")
    assert made.code == 0, made.err
    refused = hemascope("predict", few[0], "--model", other, "--frame", frame)
    assert refused.code == 2
    assert "moved from that of another model" in refused.err
    explained = hemascope(
        *("predict", few[0], "--model", exported, "--frame", frame, "--explain", tmp_path / "maps")
    )
    assert explained.code == 0, explained.err
    assert "Overlays explain the last layer as trained" in explained.err
    given = tmp_path / "given"  # what the file holds is of another hand: `adapt` moves its own
    args = ("adapt", exported, "--data", laboratory, "--unlabeled", "--out", given)
    assert hemascope(*args, "--frame", frame).code == 0
    heads = [load_head(folder, load_info(folder)) for folder in (given, other)]
    assert heads[0] is not None
    assert heads[1] is not None
    assert heads[0].biases == pytest.approx(heads[1].biases)


@pytest.mark.filterwarnings("ignore:.*framed")
def test_a_frame_is_kept_and_fits_its_model_alone(
    laboratory: Path, exported: Path, tmp_path: Path, hemascope: Run
) -> None:
    out = tmp_path / "answers.csv"
    args = ("predict", laboratory, "--model", exported, "--frame")
    assert hemascope(*args, "auto", "--as-trained", "--out", out).code == 0
    assert not (tmp_path / "answers.csv.frame.json").exists()  # images of the network's own size
    large = tmp_path / "large"
    large.mkdir()
    for path in list(laboratory.rglob("*.png"))[:4]:
        Image.open(path).resize((300, 300)).save(large / path.name)
    args = ("predict", large, "--model", exported, "--frame")
    outcome = hemascope(*args, "auto", "--out", out, "--overwrite")
    assert outcome.code == 0, outcome.err
    frame = tmp_path / "answers.csv.frame.json"
    assert json.loads(frame.read_text())["frame"]["num_pictures"] == 4
    assert hemascope(*args, frame, "--out", tmp_path / "again.csv").code == 0
    assert (tmp_path / "again.csv").read_text() == out.read_text()
    outcome = hemascope("predict", large, "--model", "hemanet", "--frame", frame)
    assert outcome.code == 2
    assert "makes its images otherwise" in outcome.err
    fields = json.loads(frame.read_text())["frame"] | {"is_field": True}  # as 0.1 had it
    (tmp_path / "fields.json").write_text(json.dumps(fields))
    answers = Predictor(exported, frame=str(tmp_path / "fields.json")).predict(
        [str(large / path.name) for path in large.iterdir()]
    )
    assert [answer.warning for answer in answers] == ["several cells"] * 4
    assert all(answer.abstain for answer in answers)
    outcome = hemascope(*args, "sideways")
    assert outcome.code == 2
