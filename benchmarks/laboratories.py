"""How a model does on laboratories: never seen, set apart by its guard, after a few labels.

    python benchmarks/laboratories.py MODEL [--data ../shared/data] [--repeats 5] [--only jhu]

MODEL is an exported model or its name. Prints balanced accuracy with 8 views (all answers of the
model allowed, classes with more than one cell), with the last layer moved to the laboratory as
`predict` does and as trained, each with its bootstrap interval (over patients, slides or fields
where these are known, else over cells); the share that the guard sets
apart; balanced accuracy of `adapt` without labels (given all cells; or those of half of the
groups, judged by the others), and on the other cells once the last layer was fitted to 10 and 50
labeled cells of each class, to as many drawn without regard to class, and to as many that
`adapt --suggest` would choose (mean and standard deviation
over the repeats; cells of the labeled groups are left out of the judging where groups are known),
with the classes of at least 20 cells whose mean sensitivity is below 60 %.
"""

import argparse
import csv
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from hemascope.core.answers import Answer
from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.core.framing import spread
from hemascope.core.images import symmetry
from hemascope.data.pictures import read_picture
from hemascope.inference.last_layer import Cells, choose_cells, fit_head, head_of, moved_layer
from hemascope.inference.predictor import Predictor
from hemascope.metrics.classification import auroc

_ENOUGH, _LEAST = 20, 0.6  # cells of a class whose sensitivity is to be higher than that

Images = NDArray[np.uint8]


def main() -> None:
    """Prints all tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--repeats", type=int, default=5, help="0: no last layers are fitted")
    parser.add_argument("--only", nargs="*", choices=["pbc test", "tecom", "jhu", "raabin", "bccd"])
    asked = parser.parse_args()
    plain, views = Predictor(asked.model), Predictor(asked.model, views=8)
    print(f"{plain.info.settings.name}, {plain.graph.precision}; {RESEARCH_USE_ONLY}")
    print(f"{'laboratory':14}{'n':>6}{'share':>7}{'balanced accuracy':>26}{'known':>8}{'apart':>8}")
    for name, paths, labels, groups in laboratories(asked.data):
        if asked.only and name not in asked.only:
            continue
        images, share = prepared(plain, paths)
        of_model = np.array([plain.info.classes.index(label) for label in labels])
        classes = [c for c in np.unique(of_model) if (of_model == c).sum() > 1]
        layer = views.move(len(images), images.__getitem__)
        if layer:
            probs = np.array([answer.probs for answer in views.answer(images)])
            value, low, high = interval(of_model, probs.argmax(1), classes, groups)
            as_trained = f"  as trained: {100 * value:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        else:
            as_trained = "  as trained: the same"
        answers = views.answer(images, layer)
        probs = np.array([answer.probs for answer in answers])
        value, low, high = interval(of_model, probs.argmax(1), classes, groups)
        known = np.array(classes)[probs[:, classes].argmax(1)]
        apart = np.mean([answer.warning != "" for answer in answers])
        print(
            f"{name:14}{len(labels):6,}{share:7.2f}{100 * value:10.1f} % [{100 * low:.1f}, "
            f"{100 * high:.1f}]{100 * balanced(of_model, known, classes):8.1f}{100 * apart:7.1f} %"
        )
        print(as_trained)
        if groups:
            value, low, high = interval(of_model, probs.argmax(1), classes)
            of_cells = f"[{100 * low:.1f}, {100 * high:.1f}] over cells alone"
            print(f"  intervals over {len(set(groups))} groups; {of_cells}")
        per = {plain.class_names[c]: balanced(of_model, probs.argmax(1), [c]) for c in classes}
        print("  " + ", ".join(f"{name} {100 * value:.0f}" for name, value in per.items()))
        if name != "pbc test" and asked.repeats:
            refit(plain, images, of_model, groups, classes, asked.repeats)
    if not asked.only:
        not_cells(plain, asked.data)


def laboratories(
    data: Path,
) -> list[tuple[str, list[Path], list[str], list[str] | None]]:
    """Names, paths, labels and groups."""
    found: list[tuple[str, list[Path], list[str], list[str] | None]] = []
    for name, folder in (("pbc test", data / "pbc_200" / "test"), ("tecom", data / "tecom_wbc")):
        paths = sorted(path for path in folder.rglob("*.*") if path.is_file())
        found.append((name, paths, [path.parent.name for path in paths], None))
    with (data / "labs" / "labs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("jhu", "raabin", "bccd"):
        own = [row for row in rows if row["laboratory"] == name]
        paths = [data / "labs" / row["path"] for row in own]
        found.append((name, paths, [r["label"] for r in own], [r["group"] for r in own]))
    return found


def prepared(predictor: Predictor, paths: list[Path]) -> tuple[Images, float]:
    """The images of files as `predict` makes them, and the share of each photograph used."""
    frame = predictor.decide_frame([lambda p=path: read_picture(p) for path in spread(paths)])
    spec = predictor.spec.framed(frame) if frame else predictor.spec
    return spec.prepare(
        read_picture(path).image for path in paths
    ).images, frame.share if frame else 1


def balanced(labels: NDArray[np.int64], said: NDArray[np.int64], classes: list[int]) -> float:
    """Mean sensitivity over classes."""
    return float(np.mean([(said[labels == c] == c).mean() for c in classes]))


def interval(
    labels: NDArray[np.int64],
    said: NDArray[np.int64],
    classes: list[int],
    groups: list[str] | None = None,
) -> tuple[float, float, float]:
    """Balanced accuracy and its 95 % bootstrap interval: over groups, or over cells by class."""
    rng = np.random.default_rng(0)
    of = np.array([labels == c for c in classes])
    right = of & (said == labels)
    if groups is None:
        sizes = of.sum(axis=1)
        drawn = (rng.binomial(sizes, right.sum(axis=1) / sizes, (2000, len(sizes))) / sizes).mean(1)
    else:
        names, group = np.unique(groups, return_inverse=True)
        times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), 2000)[:, group]
        with np.errstate(invalid="ignore"):  # of a class whose groups were not drawn
            drawn = np.nanmean((times @ right.T) / (times @ of.T), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return balanced(labels, said, classes), float(low), float(high)


def refit(
    predictor: Predictor,
    images: Images,
    labels: NDArray[np.int64],
    groups: list[str] | None,
    classes: list[int],
    repeats: int,
) -> None:
    """Prints what the last layer does after a few labels."""
    views = np.stack([predictor.engine.features(symmetry(images, view)) for view in range(8)])
    if (guard := predictor.guard) is None:
        sys.exit("the model gives no features")
    scale = float(guard.restored(guard.kept).std(axis=0).mean())
    cells = Cells(guard.last_layer, scale, views, labels)
    answers = predictor.answer(images)
    probs = np.array([answer.probs for answer in answers])
    units = np.array(groups) if groups else np.arange(len(labels))
    large = [c for c in classes if (labels == c).sum() >= _ENOUGH]
    everything = np.arange(len(labels))
    halves = [
        np.flatnonzero(np.isin(units, order[: len(order) // 2]))
        for order in (
            np.random.default_rng(r).permutation(np.unique(units)) for r in range(repeats)
        )
    ]
    for what, given in (("all", [everything]), ("half", halves)):
        found: list[float] = []
        for rows in given:
            judge = everything if what == "all" else np.setdiff1d(everything, rows)
            features = views[0][rows][guard.show_cells(images[rows])]
            layer = moved_layer(
                guard, guard.last_layer, features, predictor.decision_of().temperature
            )
            head = head_of(layer) if layer else guard.last_layer
            said = np.sum([head.logits(view[judge]) for view in views], axis=0).argmax(1)
            present = [c for c in classes if (labels[judge] == c).any()]
            found.append(balanced(labels[judge], said, present))
        print(
            f"  no labels, {what} of the cells: {100 * np.mean(found):.1f} ± "
            f"{100 * np.std(found):.1f} % (n = {len(found)})"
        )
    for each in (10, 50):
        for how in ("each class", "random", "suggested"):
            found: list[float] = []
            of_classes: list[list[float]] = []
            for repeat in range(repeats):
                rng = np.random.default_rng(repeat)
                # Half of the groups may be labeled, the others judge.
                order = rng.permutation(np.unique(units))
                pool = np.flatnonzero(np.isin(units, order[: len(order) // 2]))
                judge = np.setdiff1d(np.arange(len(labels)), pool)
                by_class = [rng.permutation(pool[labels[pool] == c])[:each] for c in classes]
                rows = np.concatenate(by_class)
                if how == "random":
                    rows = rng.permutation(pool)[: len(rows)]
                elif how == "suggested":
                    rows = pool[choose_cells(probs[pool], views[0][pool], len(rows))]
                present = [c for c in classes if (labels[judge] == c).any()]
                head = fit_head(cells, rows, 8, None)
                logits = np.sum([head.logits(view[judge]) for view in views], axis=0)
                said = logits.argmax(1)
                found.append(balanced(labels[judge], said, present))
                of_classes.append(
                    [balanced(labels[judge], said, [c]) if c in present else np.nan for c in large]
                )
            print(
                f"  {each} a class, {how}: {100 * np.mean(found):.1f} ± {100 * np.std(found):.1f} %"
                f" (n = {repeats})"
            )
            if how == "each class":
                means = zip(large, np.nanmean(of_classes, axis=0), strict=True)
                low = [f"{predictor.class_names[c]} {100 * v:.0f}" for c, v in means if v < _LEAST]
                print(f"    below {100 * _LEAST:.0f} %: {', '.join(low) or 'no class'}")


def not_cells(predictor: Predictor, data: Path) -> None:
    """Prints the share set apart of what is not a cell of the classes."""
    rng = np.random.default_rng(1)
    sets: dict[str, list[Image.Image]] = {
        "white noise": [
            Image.fromarray(rng.integers(0, 256, (s, s, 3), dtype=np.uint8))
            for s in rng.integers(64, 400, 100)
        ],
        "smooth noise": [
            Image.fromarray(rng.integers(0, 256, (k, k, 3), dtype=np.uint8)).resize((300, 300))
            for k in rng.integers(3, 40, 200)
        ],
        "flat colors": [
            Image.new("RGB", (300, 300), tuple(rng.integers(0, 256, 3).tolist()))
            for _ in range(100)
        ],
        "drawings": [drawing(rng) for _ in range(100)],
        "text": [text(rng) for _ in range(100)],
    }
    sets["smear fields"] = [
        read_picture(path).image for path in sorted((data / "smears" / "Images").glob("*.jpg"))
    ]
    for name, pictures in sets.items():
        answers = predictor.predict(pictures)
        print(f"{name:14}{len(answers):6,}  set apart {100 * apart(answers):.1f} %")
    folder = data / "labs_other" / "jhu"
    distances: dict[str, list[float]] = {}
    for name in ("blast", "smudge"):
        images, _ = prepared(predictor, sorted((folder / name).glob("*.jpg")))
        answers = predictor.answer(images)
        distances[name] = [answer.distance or 0 for answer in answers]
        print(f"{name:14}{len(answers):6,}  set apart {100 * apart(answers):.1f} %")
    named = sorted((data / "labs" / "jhu").rglob("*.jpg"))
    own = [answer.distance or 0 for answer in predictor.answer(prepared(predictor, named)[0])]
    others = distances["blast"] + distances["smudge"]
    truth = np.array([0] * len(own) + [1] * len(others))
    print(f"AUROC of blasts and smudge cells: {auroc(np.array(own + others), truth == 1):.3f}")


def apart(answers: list[Answer]) -> float:
    """The share with a warning."""
    return float(np.mean([answer.warning != "" for answer in answers]))


def drawing(rng: np.random.Generator) -> Image.Image:
    """Rectangles and ellipses of any color."""
    picture = Image.new("RGB", (300, 300), tuple(rng.integers(0, 256, 3).tolist()))
    pen = ImageDraw.Draw(picture)
    for _ in range(rng.integers(1, 30)):
        x, y, w, h = rng.integers(5, 250, 4).tolist()
        shape = pen.rectangle if rng.random() < 0.5 else pen.ellipse
        shape((x, y, x + w / 2, y + h / 2), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture


def text(rng: np.random.Generator) -> Image.Image:
    """Lines of letters."""
    picture = Image.new("RGB", (300, 300), (255, 255, 255))
    pen = ImageDraw.Draw(picture)
    for y in range(0, 300, int(rng.integers(12, 40))):
        line = "".join(map(chr, rng.integers(65, 122, 60).tolist()))
        pen.text((5, y), line, fill=(20, 20, 20), font_size=int(rng.integers(10, 40)))
    return picture


if __name__ == "__main__":
    main()
