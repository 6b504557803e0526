"""Saved predictions of finished runs: found, read, and held to one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hemascope.core.classes import Split
from hemascope.core.errors import DataError
from hemascope.core.predictions import Predictions
from hemascope.report.text import seen_sentence
from hemascope.settings.run import load_config
from hemascope.store.files import FIGURES
from hemascope.store.predictions import read_predictions
from hemascope.store.run_folder import RunFolder, find_results


@dataclass(frozen=True)
class Saved:
    """One run's predictions and what its results say of them."""

    path: Path
    name: str
    seed: int
    title: str
    predictions: Predictions
    num_parameters: int
    data_md5: str
    num_seen: int | None  # of these images, trained on; None if unknown
    made_by: tuple[object, ...]  # what it was trained on and how, but for the seed


@dataclass(frozen=True)
class SavedPair:
    """One run's predictions on val, where things are fitted, and on test, where they are tried."""

    val: Saved
    test: Saved


def read_all(folders: Sequence[Path], *, views: bool) -> dict[str, list[Saved]]:
    """The predictions behind every results.json in some folders, by network, in order of seed.

    Raises:
        DataError: If one is missing or damaged, duplicated, or is of other images than the
            first.
    """
    return _by_network([_read(path, None, views=views) for path in find_results(folders)])


def read_pairs(folders: Sequence[Path], *, views: bool) -> dict[str, list[SavedPair]]:
    """The same on val and on test.

    Raises:
        DataError: As `read_all`, or if val and test are the same images.
    """
    results = find_results(folders)
    vals, tests = (
        _by_network([_read(path, split, views=views) for path in results])
        for split in (Split.VAL, Split.TEST)
    )
    pairs = {
        name: [SavedPair(*both) for both in zip(vals[name], tests[name], strict=True)]
        for name in vals
    }
    for pair in (pair for members in pairs.values() for pair in members):
        val, test = pair.val.predictions, pair.test.predictions
        if val.logits.shape == test.logits.shape and (val.logits == test.logits).all():
            raise DataError(
                f"{pair.val.path} and {pair.test.path} hold the same predictions; what is fitted "
                "on val is to be tried on other images."
            )
    return pairs


def _read(folder: RunFolder, split: Split | None, *, views: bool) -> Saved:
    results = folder.read_results()
    chosen = split or Path(results.split).name
    path = folder.predictions(chosen, views=views)
    if views and not path.is_file():
        raise DataError(
            f"there is no {path}: this run was not evaluated with 8 views; train it with "
            "`views` = 8 or leave `views` out."
        )
    title = f"{results.data}, split {chosen}" + (", 8 views" if views else "")
    return Saved(
        path=path,
        name=results.label,
        seed=results.seed,
        title=title,
        predictions=read_predictions(path),
        num_parameters=results.num_parameters,
        data_md5=results.data_md5,
        num_seen=results.num_seen if chosen == results.split else results.num_seen_val,
        made_by=(results.trained_on, *_settings_of(folder)),
    )


def _settings_of(folder: RunFolder) -> tuple[object, ...]:
    """What a run was trained by, where its folder says so."""
    if not folder.config.is_file():
        return ()
    settings = load_config(folder.config)
    return settings.model, settings.training, bool(settings.start), bool(settings.teacher)


def leaks(networks: Mapping[str, Sequence[Saved]]) -> list[str]:
    """A sentence for each network that was trained on images it is now judged by."""
    sentences = {
        seen_sentence(one.name, one.num_seen) for runs in networks.values() for one in runs
    }
    return sorted(sentences - {""})


def _by_network(saved: Sequence[Saved]) -> dict[str, list[Saved]]:
    for one in saved[1:]:
        _check_same_images(one, saved[0])
    networks: dict[str, list[Saved]] = {}
    for one in sorted(saved, key=lambda one: one.seed):
        members = networks.setdefault(one.name, [])
        if members and members[-1].seed == one.seed:
            raise DataError(
                f"{one.path} is the second run called '{one.name}' with seed {one.seed}; give each "
                "network its own `name` when training, and each run once."
            )
        if members and members[-1].num_parameters != one.num_parameters:
            raise DataError(
                f"{one.path} and {members[-1].path} are both called '{one.name}', but have "
                f"{one.num_parameters:,} and {members[-1].num_parameters:,} parameters; give each "
                "network its own `name` when training."
            )
        if members and members[-1].made_by != one.made_by:
            raise DataError(
                f"{one.path} and {members[-1].path} are both called '{one.name}', but differ in "
                "more than the seed (data, settings, start or teacher); give each network its own "
                "`name` when training."
            )
        members.append(one)
    order = dict.fromkeys(one.name for one in saved)
    return {name: networks[name] for name in order}


def _check_same_images(one: Saved, first: Saved) -> None:
    ours, theirs = one.predictions, first.predictions
    for what, here, there in (
        ("classes", ours.classes.names, theirs.classes.names),
        ("images", ours.ids, theirs.ids),
        ("labels", ours.labels.tolist(), theirs.labels.tolist()),
    ):
        if list(here) != list(there):
            raise DataError(
                f"{one.path} and {first.path} do not have the same {what} in the same order: "
                f"{_first_difference(here, there)}; compare runs on the same split of the same "
                "data."
            )
    if one.data_md5 and first.data_md5 and one.data_md5 != first.data_md5:
        raise DataError(
            f"{one.path} and {first.path} are of different files (md5 {one.data_md5} and "
            f"{first.data_md5}); compare runs on the same split of the same data."
        )
    if one.title != first.title:
        raise DataError(
            f"{one.path} is of {one.title}, {first.path} of {first.title}; compare runs on the "
            "same split of the same data."
        )


def _first_difference(here: Sequence[object], there: Sequence[object]) -> str:
    for row, (ours, theirs) in enumerate(zip(here, there, strict=False), start=1):
        if ours != theirs:
            return f"row {row} is {ours!r} in one and {theirs!r} in the other"
    return f"{len(here)} rows in one and {len(there)} in the other"


def passed_over(folders: Sequence[Path]) -> list[Path]:
    """The subfolders of some parents of runs that hold no results, by name."""
    return [
        path
        for folder in folders
        if not RunFolder(folder).is_finished
        for path in sorted(folder.iterdir())
        if path.is_dir()
        and path.name != FIGURES
        and not path.name.startswith(".")
        and not RunFolder(path).is_finished
    ]
