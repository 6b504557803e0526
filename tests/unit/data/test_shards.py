"""Data in shards: what goes in comes out, whole or said to be damaged."""

import csv
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import Outcome, read, save_cells
from hemascope.core.classes import Split
from hemascope.core.errors import DataError
from hemascope.core.images import LabeledImages, StoredImages, concatenate, stored
from hemascope.data import load
from hemascope.data.rendered import render
from hemascope.data.shards import write_shards
from hemascope.data.source import Request
from hemascope.settings.data import DataSettings

Run = Callable[..., Outcome]


@pytest.fixture
def shards(small_npz: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "shards"
    folder.mkdir()
    write_shards(read(small_npz), folder, rows=10)
    return folder


def _table(folder: Path) -> Path:
    """Pictures of which a table says everything that one can."""
    rows: list[dict[str, object]] = []
    for i, image in enumerate(render(np.arange(60) % 3, seed=0, image_size=40)):
        Image.fromarray(image).resize((40 + i % 2, 40)).save(folder / f"{i}.png")
        said = {"group": f"patient {i // 2}", "laboratory": "ab"[i % 2], "weight": 1 + i % 4}
        rows.append({"path": f"{i}.png", "label": "abc"[i // 2 % 3], **said})
    with (folder / "cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "cells.csv"


def _same(one: LabeledImages, other: LabeledImages) -> bool:
    def equal(name: str) -> bool:
        left, right = getattr(one, name), getattr(other, name)
        return np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right

    return np.array_equal(one.images, other.images) and all(
        equal(field.name) for field in fields(LabeledImages) if field.name != "images"
    )


def test_everything_that_is_known_of_images_comes_back(hemascope: Run, tmp_path: Path) -> None:
    table, out = _table(tmp_path), tmp_path / "new" / "shards"
    outcome = hemascope("data", "shard", table, "--image-size", 32, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "60 images of 32 pixels in 3 shard(s)" in outcome.out
    before, after = read(table, image_size=32), read(out)
    assert after.splits.keys() == before.splits.keys()
    for split, part in before.splits.items():
        assert part.groups is not None
        assert part.weights is not None
        assert part.sizes is not None
        assert _same(part, after.splits[split]), split
        np.testing.assert_array_equal(part.looks, after.splits[split].looks)
    assert after.classes == before.classes
    assert after.spec == before.spec
    assert after.channels == before.channels
    assert after.notes == before.notes
    assert {path.name for path in tmp_path.iterdir()} >= {"new", "cells.csv"}
    assert not list(tmp_path.glob(".*"))  # nothing is left of the work


def test_damaged_pictures_and_shards_are_refused_or_left_out(
    hemascope: Run, small_npz: Path, shards: Path, tmp_path: Path
) -> None:
    whole = read(shards)
    file = shards / "train-00001.arrow"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (shards / "train-00003.arrow").unlink()
    outcome = hemascope("data", "verify", shards)
    assert outcome.code == 2
    assert "2 damaged file(s)" in outcome.err
    assert f"{file} (damaged: its md5 is another; 10 train images)" in outcome.err
    assert "train-00003.arrow (missing; 10 train images)" in outcome.err
    assert "leave them out by --skip-bad" in outcome.err
    rest = read(shards, skip_bad=True)
    ids = whole.splits[Split.TRAIN].ids
    kept = np.array([i for i in range(len(ids)) if i // 10 not in (1, 3)])
    assert _same(rest.splits[Split.TRAIN], whole.splits[Split.TRAIN].take(kept))
    assert [Path(bad.path).name for bad in rest.bad] == ["train-00001.arrow", "train-00003.arrow"]
    assert rest.md5 != whole.md5  # so a run is not resumed with fewer
    for path in shards.glob("*.arrow"):
        path.unlink()
    with pytest.raises(DataError, match="has no shard that is whole"):
        read(shards, skip_bad=True)
    pictures = save_cells(tmp_path / "cells", {"lymphocyte": 10, "monocyte": 10})
    (pictures / "monocyte" / "3.png").write_bytes(b"\x89PNG")
    out = tmp_path / "out"
    outcome = hemascope("data", "shard", pictures, "--out", out)
    assert outcome.code == 2
    assert not out.exists()
    assert hemascope("data", "shard", pictures, "--out", out, "--skip-bad").code == 0
    assert sum(len(part) for part in read(out).splits.values()) == 19


@pytest.mark.parametrize("options", [{"image_size": 64}, {"crop": 0.5}, {"frame": "whole"}])
def test_finished_images_are_not_made_again(shards: Path, options: dict[str, object]) -> None:
    with pytest.raises(DataError, match="holds finished images of 28 pixels"):
        load(Request(DataSettings.model_validate({"sources": (str(shards),), **options})))


def test_a_damaged_manifest_is_named(shards: Path) -> None:
    (shards / "shards.json").write_text('{"format_version": 2}')
    with pytest.raises(DataError, match=r"shards\.json: field"):
        read(shards)


def test_stored_images_act_as_the_array_they_are_read_from() -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(256, size=(50, 8, 8, 3)).astype(np.uint8)
    images = stored([array[:7], array[7:8], array[8:]])
    assert isinstance(images, StoredImages)
    assert (len(images), images.shape, images.dtype) == (50, array.shape, array.dtype)
    rows = rng.integers(-50, 50, size=20)
    for key in (0, 7, -1, slice(5, 9), slice(None, None, -3), rows, array[:, 0, 0, 0] > 99):
        np.testing.assert_array_equal(images[key], array[key])
    taken = images.take(np.arange(40)[::2]).take(rows[rows >= 0] % 20)
    assert isinstance(taken, StoredImages)
    np.testing.assert_array_equal(taken, array[:40:2][rows[rows >= 0] % 20])
    np.testing.assert_array_equal(list(images), array)
    with pytest.raises(IndexError):
        images[50]


def test_training_from_shards_is_training_from_memory_to_the_bit(
    hemascope: Run, small_npz: Path, shards: Path, trained: Path, tmp_path: Path
) -> None:
    from hemascope.store.model_folder import load_artifact
    from hemascope.store.predictions import read_predictions
    from hemascope.store.run_folder import RunFolder

    out = tmp_path / "run"
    command = ("train", "--preset", "paper-cnn", "--epochs", 2, "--data", shards, "--out", out)
    assert hemascope(*command).code == 0
    (_, from_shards), (_, from_memory) = load_artifact(out), load_artifact(trained)
    for name, weights in from_memory.items():
        np.testing.assert_array_equal(weights, from_shards[name])
    one, other = (
        read_predictions(RunFolder(path).predictions(Split.TEST, views=False))
        for path in (out, trained)
    )
    np.testing.assert_array_equal(one.logits, other.logits)


def test_shards_are_joined_with_each_other_and_with_images_in_memory() -> None:
    array = np.random.default_rng(0).integers(256, size=(30, 8, 8, 3)).astype(np.uint8)
    labels, ids = np.arange(30), tuple(map(str, range(30)))
    parts = [
        LabeledImages(images, labels[first : first + 10], ids[first : first + 10])
        for first, images in (
            (0, stored([array[:4], array[4:20]]).take(np.arange(10), axis=0)),
            (10, array[10:20]),
            (20, stored([array[20:]])),
        )
    ]
    together = concatenate(parts)
    assert isinstance(together.images, StoredImages)
    np.testing.assert_array_equal(together.images, array)
    assert _same(together, LabeledImages(array, labels, ids))


@pytest.mark.parametrize("split", ["train", "all"])
def test_a_packaged_model_judges_shards_as_the_images_they_are_made_of(
    hemascope: Run, tmp_path: Path, split: str
) -> None:
    cells = save_cells(tmp_path / "cells", {"ig": 12, "platelet": 12}, size=64)
    shards = tmp_path / "shards"
    outcome = hemascope("data", "shard", cells, "--image-size", 64, "--out", shards)
    assert outcome.code == 0, outcome.err
    found: list[str] = []
    for source in (cells, shards):
        out = tmp_path / f"of-{source.name}"
        outcome = hemascope(
            *("evaluate", "hemanet-64-labs", "--data", source, "--split", split, "--out", out)
        )
        assert outcome.code == 0, outcome.err
        found.append(next(out.glob("predictions-*.csv")).read_text())
    rows = [{tuple(line.split(",")[1:]) for line in text.splitlines()} for text in found]
    assert rows[0] == rows[1]


def test_shards_of_images_that_a_model_makes_otherwise_are_refused(
    hemascope: Run, tmp_path: Path
) -> None:
    cells = save_cells(tmp_path / "cells", {"ig": 12, "platelet": 12}, size=100)
    outcome = hemascope("data", "shard", cells, "--image-size", 28, "--out", tmp_path / "shards")
    assert outcome.code == 0, outcome.err
    outcome = hemascope("evaluate", "hemanet", "--data", tmp_path / "shards")
    assert outcome.code == 2
    assert "otherwise than the model's" in outcome.err
