"""`hemascope sweep`: the settings with which a network does best on val, searched by Optuna."""

import hashlib
import shutil
import warnings
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import optuna
from filelock import FileLock
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, field_validator, model_validator
from sqlalchemy import NullPool, create_engine, func, select

from hemascope.core.classes import Split
from hemascope.core.errors import DataError, DivergedError, OutputError, UsageError
from hemascope.core.images import Dataset
from hemascope.data import located
from hemascope.inference.efficiency import cores
from hemascope.inference.torch_engine import pick_device
from hemascope.models import check_model
from hemascope.report import plots
from hemascope.report.formats import format_tables
from hemascope.report.text import markdown_table
from hemascope.settings.base import Settings, dotted, load_toml
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.settings.run import RunSettings
from hemascope.store.files import (
    FIGURES,
    MARK,
    claimed,
    explained,
    make_folder,
    make_out,
    write_json,
    write_text,
)
from hemascope.store.provenance import fingerprint
from hemascope.store.run_folder import RunFolder
from hemascope.training.state import EpochRecord
from hemascope.workflows.plan import changed, choose_settings
from hemascope.workflows.progress import Reporter
from hemascope.workflows.sources import load_data
from hemascope.workflows.train import TrainingRun, fit

Engine = Literal["process", "ray"]
_JOURNAL, _TABLE, _BEST, _LOCK = "journal.log", "trials.csv", "best.toml", ".sweep.lock"
_SHOWN = 5  # trials in the summary
_RETRIES = 2  # of a worker of Ray that is lost
_KEY = 0x68656D61  # of the lock in PostgreSQL
_DONE = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
# What Optuna keeps of a trial for us: its place in the sweep, the `out` that its folder is in, and
# the number of the trial that it resumes, whose process was killed.
_INDEX, _PLACE, _REPLACES = "index", "place", "replaces"


class Space(Settings):
    """The values of one setting that are tried: from `low` to `high`, or `choices`."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    choices: tuple[bool | int | float | str, ...] = ()

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        ends = (self.low, self.high)
        if bool(self.choices) == (ends != (None, None)) or (not self.choices and None in ends):
            raise ValueError("give low and high, or choices")
        return self


class SweepSettings(Settings):
    """What a sweep file says.

    `preset`, or the settings file `config`, is what the search begins from, with the settings in
    `fixed` in place of its own. `search` holds the settings to search, such as
    `training.learning_rate`. `trials` is how many are tried, `seed` decides which. `metric` is the
    figure on val that they are judged by, and `prune` stops trials below the median of the earlier
    ones after the same epoch, once `startup` trials are complete and the trial is `grace` epochs
    old.
    """

    preset: str | None = None
    config: str | None = None
    trials: int = Field(ge=1, le=100_000)
    seed: int = Field(default=0, ge=0, lt=2**31)
    metric: Literal["loss", "accuracy", "f1_weighted"] = "loss"
    prune: bool = True
    startup: int = Field(default=5, ge=1)
    grace: int = Field(default=0, ge=0)
    fixed: dict[str, Any] = Field(default_factory=dict)
    search: dict[str, Space] = Field(min_length=1)

    @field_validator("fixed", "search", mode="before")
    @classmethod
    def _flat(cls, tables: Any) -> Any:
        return dotted(tables, Space.model_fields) if isinstance(tables, dict) else tables


@dataclass(frozen=True)
class _Sweep:
    """A sweep file that was checked, its data without test, and where its results go."""

    asked: SweepSettings
    base: RunSettings
    space: Mapping[str, BaseDistribution]
    dataset: Dataset
    folder: Path
    storage: str

    @property
    def figure(self) -> str:
        """What trials are judged by, as the history of a run calls it."""
        return f"val_{self.asked.metric}"

    def of(self, trial: FrozenTrial | optuna.Trial) -> Path:
        """The folder of a trial."""
        return self.folder / f"trial-{trial.user_attrs[_INDEX] + 1:04}"

    @contextmanager
    def alone(self) -> Generator[None]:
        """Keeps the sweep's other processes waiting: with the same folder, or PostgreSQL."""
        with FileLock(self.folder / _LOCK), ExitStack() as held:
            if self.storage.startswith("postgresql"):
                connection = held.enter_context(
                    create_engine(self.storage, poolclass=NullPool).begin()
                )
                connection.execute(select(func.pg_advisory_xact_lock(_KEY)))
            yield

    def study(self) -> optuna.Study:
        """The trials so far, which other processes may be adding to.

        Raises:
            UsageError: If the storage cannot be reached.
            DataError: If it holds another sweep.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        told = self.asked.model_dump_json(exclude={"trials"}) + self.base.to_toml()
        name = hashlib.sha256(f"{told}{self.dataset.md5}".encode()).hexdigest()[:16]
        asked, journal = self.asked, self.folder / _JOURNAL
        try:
            storage: Any = self.storage or optuna.storages.JournalStorage(
                # A lock that ends with its process, unlike Optuna's own.
                JournalFileBackend(str(journal), cast("Any", FileLock(f"{journal}.lock")))
            )
            others = [] if self.storage else optuna.get_all_study_names(storage)
            pruner = optuna.pruners.MedianPruner(asked.startup, asked.grace)
            with self.alone():  # two processes would both make a database's tables
                study = optuna.create_study(
                    storage=storage,
                    study_name=name,
                    load_if_exists=True,
                    direction="minimize" if asked.metric == "loss" else "maximize",
                    pruner=pruner if asked.prune else optuna.pruners.NopPruner(),
                )
        except Exception as error:  # of any driver of any database
            where = f"storage: {self.storage.rpartition('@')[2]}" if self.storage else str(journal)
            raise UsageError(f"cannot use {where} ({error}); correct it.") from error
        if others and name not in others:
            raise DataError(
                f"the sweep in {self.folder} was started with another file or other data; give "
                "the same as then, or another `out`.",
                field="resume",
            )
        return study


def value_of(history: Sequence[EpochRecord], figure: str, patience: int) -> float:
    """The figure of the epoch whose network a run with such patience keeps."""
    if patience:
        return min(history, key=lambda record: record.val_loss).figures[figure]
    return history[-1].figures[figure]


def sweep(
    path: Path,
    data: DataSettings,
    output: Output,
    *,
    engine: Engine,
    storage: str,
    reporter: Reporter,
) -> str:
    """Searches settings by val alone; several processes may work on one sweep.

    Args:
        path: The sweep file.
        data: The data; its test split is dropped when it is read.
        output: Gets a folder for each trial, the trials, the figures and the best settings; one
            that is there is resumed, or joined.
        engine: Whether this process tries one after another, or Ray's workers do.
        storage: A database's URL, for processes that share no folder; else a journal in `output`.
        reporter: Gets progress and notes.

    Returns:
        What was found, as text.

    Raises:
        UsageError: If the file is wrong, or the storage cannot be reached.
        DataError: If the folder holds another sweep, or no trial could be finished.
        OutputError: If the folder cannot be written.
    """
    asked = load_toml(path, SweepSettings)
    base, space = _checked(asked, str(path))
    dataset = load_data(data, reporter)
    splits = {split: dataset.splits[split] for split in (Split.TRAIN, Split.VAL)}
    sources = tuple(map(located, data.sources))  # so that they are found from anywhere
    base = base.model_copy(update={"data": data.model_copy(update={"sources": sources})})
    found = _Sweep(asked, base, space, replace(dataset, splits=splits), output.folder, storage)
    if not (output.resume and (output.folder / MARK).is_file()):
        with claimed(output.folder):
            make_out(output.folder, overwrite=output.overwrite)
            facts = fingerprint(found.dataset, device=pick_device(base.device).type)
            write_json(output.folder / MARK, facts)
    study = found.study()
    if engine == "ray":
        _on_ray(found, study, reporter)
    else:
        while line := _try_one(found, study):
            reporter.say(line)
    return _publish(found, study)


def _checked(asked: SweepSettings, origin: str) -> tuple[RunSettings, dict[str, BaseDistribution]]:
    """What the search begins from and what it searches, with both ends of each tried out."""
    base = choose_settings(asked.preset, Path(asked.config) if asked.config else None)
    base = changed(base, asked.fixed, origin=f"{origin}: fixed")
    space: dict[str, BaseDistribution] = {}
    for name, one in asked.search.items():
        table = name.partition(".")[0]
        values = one.choices or (one.low, one.high)
        settings = [changed(base, {name: v}, origin=f"{origin}: search") for v in values]
        for own in settings:
            check_model(own.model)
        if table not in ("training", "model"):
            raise UsageError(f"{origin}: search: '{name}' is not of training or model; remove it.")
        low, high = one.low, one.high
        as_used = dotted(settings[0].model_dump()).get(name)
        try:
            if low is None or high is None:
                space[name] = CategoricalDistribution(one.choices)
            elif isinstance(as_used, int) and isinstance(high, int):
                space[name] = IntDistribution(int(low), high, log=one.log)
            else:
                space[name] = FloatDistribution(low, high, log=one.log)
        except ValueError as error:
            raise UsageError(f"{origin}: search: '{name}': {error}; correct it.") from error
    return base, space


def _try_one(sweep: _Sweep, study: optuna.Study) -> str:
    """Trains with the settings to try next and says what came of it; "" if all were tried."""
    asked = sweep.asked
    mark = (sweep.folder / MARK).stat()
    place = f"{mark.st_ino}-{mark.st_mtime_ns}"
    with ExitStack() as held:
        with sweep.alone():
            _replace_killed(sweep, study, place)
            trials = _trials(study)
            if not any(trial.state == TrialState.WAITING for trial in trials):
                if len(trials) >= asked.trials:
                    return ""
                study.enqueue_trial({}, user_attrs={_INDEX: len(trials), _PLACE: place})
            trial = study.ask()
            index, out = trial.user_attrs[_INDEX], sweep.of(trial)
            held.enter_context(claimed(out))
            if trial.user_attrs[_PLACE] != place:
                trial.set_user_attr(_PLACE, place)
        # Seeded by its place in the sweep: a resumed sweep tries what it would have tried.
        study.sampler = optuna.samplers.TPESampler(seed=asked.seed + index)
        told = 0

        def report(run: TrainingRun) -> None:
            nonlocal told
            for record in run.history[told:]:  # all of them, where a killed trial is resumed
                trial.report(record.figures[sweep.figure], record.epoch)
            told = len(run.history)
            if trial.should_prune():
                raise optuna.TrialPruned(f"after epoch {told}")

        try:
            chosen = {name: _suggested(trial, name, one) for name, one in sweep.space.items()}
            run = fit(
                changed(sweep.base, chosen, origin="its settings"),
                sweep.dataset,
                Output(out, resume=True),
                Reporter(quiet=True),
                watch=report,
            )
            value = value_of(run.history, sweep.figure, run.settings.training.patience)
            study.tell(trial, value)
            outcome = f"{sweep.figure} {value:.4f}"
        except optuna.TrialPruned as pruned:
            study.tell(trial, state=TrialState.PRUNED)
            outcome = f"pruned {pruned}"
        except (DataError, DivergedError, UsageError) as error:
            study.tell(trial, state=TrialState.FAIL)
            outcome = f"failed: {error}"
        shutil.rmtree(RunFolder(out).checkpoint, ignore_errors=True)
        return f"Trial {index + 1} of {asked.trials}: {outcome}"


def _suggested(trial: optuna.Trial, name: str, one: BaseDistribution) -> Any:
    if isinstance(one, IntDistribution):
        return trial.suggest_int(name, one.low, one.high, log=one.log)
    if isinstance(one, FloatDistribution):
        return trial.suggest_float(name, one.low, one.high, log=one.log)
    return trial.suggest_categorical(name, cast("CategoricalDistribution", one).choices)


def _trials(study: optuna.Study) -> list[FrozenTrial]:
    """All trials but those that another one resumes."""
    trials = study.get_trials(deepcopy=False)
    replaced = {trial.user_attrs.get(_REPLACES) for trial in trials}
    return [trial for trial in trials if trial.number not in replaced]


def _replace_killed(sweep: _Sweep, study: optuna.Study, place: str) -> None:
    """Has trials that are running, but in whose folder no process writes, taken up again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs[_PLACE] != place:
            continue  # of another machine's folder
        try:
            with claimed(sweep.of(trial)):
                pass
        except OutputError:
            continue  # its process lives
        study.tell(trial.number, state=TrialState.FAIL)
        kept = {**trial.user_attrs, _REPLACES: trial.number}
        # Killed while it was choosing, it chooses anew: each choice depends on those before it.
        params = trial.params if trial.params.keys() == sweep.space.keys() else {}
        study.enqueue_trial(params, user_attrs=kept)


def _on_ray(sweep: _Sweep, study: optuna.Study, reporter: Reporter) -> None:
    """Has Ray's workers try settings, one for each core; a trial whose worker is lost is retried.

    Optuna chooses and prunes, as in one process: Ray Tune says where each trial runs.
    """
    from hemascope.scale.ray_predict import ray_started

    done = sum(trial.state in _DONE for trial in _trials(study))
    if done >= sweep.asked.trials:
        return
    moved = replace(sweep, folder=sweep.folder.resolve())

    with ray_started(cores()):
        from ray import tune

        def work(_config: dict[str, object], sweep: _Sweep) -> dict[str, str]:
            # Workers of one machine share the images, which training only reads.
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            return {"outcome": _try_one(sweep, sweep.study())}

        class Told(tune.Callback):  # pyright: ignore[reportUntypedBaseClass] - where Ray is missing
            def on_trial_result(self, **info: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - it is called by names
                reporter.say(info["result"]["outcome"])

        tune.Tuner(
            tune.with_resources(tune.with_parameters(work, sweep=moved), {"cpu": 1}),
            tune_config=tune.TuneConfig(num_samples=sweep.asked.trials - done, reuse_actors=True),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(moved.folder),
                failure_config=tune.FailureConfig(max_failures=_RETRIES),
                verbose=0,
                callbacks=[Told()],
            ),
        ).fit()


def _publish(sweep: _Sweep, study: optuna.Study) -> str:
    """Writes the trials, the figures and the best settings, and tells of them."""
    folder, figure = sweep.folder, sweep.figure
    trials = [trial for trial in _trials(study) if trial.state != TrialState.WAITING]
    trials.sort(key=lambda trial: trial.user_attrs[_INDEX])
    complete = [t for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
    if not complete:
        raise DataError(f"no trial in {folder} was finished; its training.log files say why.")
    names = list(sweep.space)
    rows = [["trial", "folder", "state", figure, *names]]
    for trial in trials:
        values = (trial.value, *(trial.params.get(name) for name in names))
        own = [str(trial.user_attrs[_INDEX] + 1), sweep.of(trial).name, trial.state.name.lower()]
        rows.append([*own, *("" if value is None else str(value) for value in values)])
    best = study.best_trial
    settings = changed(sweep.base, best.params)
    counts = ", ".join(
        f"{sum(t.state == state for t in trials)} {word}"
        for state, word in zip(_DONE, ("complete", "pruned", "failed"), strict=True)
    )
    title = f"{sweep.dataset.title}: {len(trials)} trials ({counts})"
    about = f"# {title}; best {figure} {best.value:.4f}, trial {best.user_attrs[_INDEX] + 1}.\n"
    with explained(folder), FileLock(folder / _LOCK):
        write_text(folder / _TABLE, format_tables([rows], "csv") + "\n")
        write_text(folder / _BEST, about + settings.to_toml())
        _draw(sweep, study, trials, make_folder(folder / FIGURES), title)
    complete.sort(key=lambda trial: trial.value or 0, reverse=sweep.asked.metric != "loss")
    table = [["trial", figure, *names]]
    for trial in complete[:_SHOWN]:
        values = [_short(trial.params[name]) for name in names]
        table.append([f"{trial.user_attrs[_INDEX] + 1}", f"{trial.value:.4f}", *values])
    return "\n".join(
        [
            f"{title}; the best of them:",
            *("", markdown_table(table), ""),
            f"Best settings: {folder / _BEST}",
            f"Next: hemascope train --config {folder / _BEST} --out RUN",
        ]
    )


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(
    sweep: _Sweep, study: optuna.Study, trials: list[FrozenTrial], folder: Path, caption: str
) -> None:
    """The value of each trial, and how much each setting mattered, where that can be told."""
    values = [
        trial.value if trial.state == TrialState.COMPLETE else _last(trial) for trial in trials
    ]
    figure = plots.search_history(
        values,
        [trial.state == TrialState.COMPLETE for trial in trials],
        quantity=sweep.figure,
        smallest=sweep.asked.metric == "loss",
        caption=f"{caption}; far worse values are drawn at the edge",
    )
    plots.save_figure(figure, folder / "history")
    try:
        importance = optuna.importance.get_param_importances(study)
    except (ValueError, RuntimeError):  # of too few trials, or all alike
        return
    if importance:
        figure = plots.class_dots(
            {"importance": list(importance.values())},
            list(importance),
            quantity="share of importance",
            title="Which settings mattered",
            caption=f"{caption}; by PED-ANOVA",
        )
        plots.save_figure(figure, folder / "importance")


def _last(trial: FrozenTrial) -> float | None:
    """What a trial had come to when it was stopped."""
    reported = trial.intermediate_values
    return reported[max(reported)] if reported else None
