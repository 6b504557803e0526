"""`--tracker`: a run's history in TensorBoard or MLflow as it grows; the run folder is the truth.

A tracker is shown the run folder after each epoch and copies what it does not have yet, so a
resumed run is whole there too. One that fails is left out from then on, and the run continues.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence

from hemascope.core.errors import UsageError, did_you_mean
from hemascope.settings.base import dotted
from hemascope.settings.run import load_config
from hemascope.store.run_folder import RunFolder
from hemascope.workflows.progress import Reporter
from hemascope.workflows.train import TrainingRun, Watch

Mirror = Callable[[RunFolder], None]


def watch_with(names: Sequence[str], reporter: Reporter) -> Watch:
    """What to call after each epoch, so that trackers follow a run, or several in turn.

    Raises:
        UsageError: If one does not exist.
        ModuleNotFoundError: If one is not installed.
    """
    for name in names:
        if name not in MAKERS:
            raise UsageError(f"'{name}': {did_you_mean(name, MAKERS)}", field="tracker")
    makers = {name: MAKERS[name]() for name in dict.fromkeys(names)}
    mirrors: dict[tuple[str, str], Mirror] = {}

    def watch(run: TrainingRun) -> None:
        for name, make in list(makers.items()):
            try:
                key = (name, str(run.folder))
                mirror = mirrors.get(key) or mirrors.setdefault(key, make(run.folder))
                mirror(run.folder)
            except Exception as error:  # whatever a tracker does
                del makers[name]
                reason = " ".join(str(error).split()) or type(error).__name__
                reporter.say(
                    f"Note: {name} is left out from now on ({reason}); training continues."
                )

    return watch


def _tensorboard() -> Callable[[RunFolder], Mirror]:
    """Event files in the run folder's `tensorboard`, written anew when a run is resumed."""
    from torch.utils.tensorboard import SummaryWriter

    def make(folder: RunFolder) -> Mirror:
        shutil.rmtree(folder.tensorboard, ignore_errors=True)
        writer, done = SummaryWriter(str(folder.tensorboard)), 0
        writer.add_text("settings", f"```toml\n{folder.config.read_text('utf-8')}\n```")

        def mirror(folder: RunFolder) -> None:
            nonlocal done
            for epoch, figures in _epochs(folder, after=done):
                for name, value in figures.items():
                    writer.add_scalar(name.replace("_", "/", 1), value, epoch)
                done = epoch
            for name, value in _results(folder).items():
                writer.add_scalar(f"results/{name}", value, done)
            writer.flush()

        return mirror

    return make


def _mlflow() -> Callable[[RunFolder], Mirror]:
    """A run of MLflow, where its environment variables say; the same one when a run is resumed."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # a server that is gone
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")  # must not hold training up
    from mlflow.tracking import MlflowClient

    def make(folder: RunFolder) -> Mirror:
        client, settings = MlflowClient(), load_config(folder.config)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "hemascope")
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else client.create_experiment(name)
        tags = {"folder": str(folder.path.resolve()), "date": folder.read_fingerprint().date}
        tags["run"] = hashlib.sha256("".join(tags.values()).encode()).hexdigest()
        found = client.search_runs([experiment], f"tags.run = '{tags['run']}'")
        run = found[0] if found else client.create_run(experiment, tags=tags, run_name=str(folder))
        own = run.info.run_id
        if not found:
            for key, value in dotted(settings.model_dump(exclude={"data", "image"})).items():
                client.log_param(own, key, value)
        done = int(run.data.metrics.get("epoch", 0))

        def mirror(folder: RunFolder) -> None:
            nonlocal done
            for epoch, figures in _epochs(folder, after=done):
                for key, value in {**figures, "epoch": epoch}.items():  # the epoch last
                    client.log_metric(own, key, value, step=epoch)
                done = epoch
            if results := _results(folder):
                for key, value in results.items():
                    client.log_metric(own, f"results_{key}", value, step=done)
                client.set_terminated(own)

        return mirror

    return make


MAKERS: dict[str, Callable[[], Callable[[RunFolder], Mirror]]] = {
    "tensorboard": _tensorboard,
    "mlflow": _mlflow,
}


def _epochs(folder: RunFolder, *, after: int) -> Iterator[tuple[int, dict[str, float]]]:
    """The figures of each epoch in a run's history, those of the first `after` left out."""
    history = folder.read_history()
    names = [name for name in history.known() if name != "epoch"]
    for row in range(after, len(history)):
        yield row + 1, {name: float(history[name][row]) for name in names}


def _results(folder: RunFolder) -> dict[str, float]:
    """The figures on test, by name, once there are any."""
    if not folder.is_finished:
        return {}
    found = folder.read_results().model_dump()
    return {key: float(value) for key, value in found.items() if isinstance(value, float)}
