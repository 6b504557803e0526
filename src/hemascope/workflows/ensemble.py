"""`hemascope ensemble`: several trained networks in one artifact."""

from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path

from hemascope.core.errors import DataError, UsageError
from hemascope.core.seen import Seen
from hemascope.inference.torch_engine import pick_device
from hemascope.models import MOST_MEMBERS, check_model
from hemascope.report.run_page import write_run_page
from hemascope.settings.compute import Compute
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.settings.run import ModelSettings
from hemascope.store.files import make_folder
from hemascope.store.model_folder import (
    ArtifactInfo,
    load_artifact,
    load_seen,
    save_artifact,
)
from hemascope.store.provenance import begun_out, fingerprint
from hemascope.store.run_folder import Costs, RunFolder
from hemascope.workflows.plan import changed
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import torch_precision, write_results
from hemascope.workflows.sources import load_data


def ensemble(
    paths: Sequence[Path],
    data: DataSettings,
    output: Output,
    *,
    name: str | None,
    compute: Compute,
    reporter: Reporter,
) -> str:
    """Puts the members into one artifact and evaluates it.

    Args:
        paths: The members' run or model folders.
        data: The data to evaluate on.
        output: Gets the model and its results.
        name: What reports call it; by default it is made of the members' names.
        compute: How the model is asked; by default in what the members were trained in.
        reporter: Gets progress and notes.

    Returns:
        The results as text.

    Raises:
        UsageError: If there are too few or too many members, or the name is none.
        DataError: If the members have different classes, image sizes or training data, or one of
            them is there twice.
        OutputError: If the results cannot be written.
    """
    chosen_device = pick_device(compute.device)
    members = [load_artifact(path) for path in paths]
    infos = [info for info, _ in members]
    chosen_precision = torch_precision(compute, infos, chosen_device)
    info = _merge(paths, infos, name)
    check_model(info.model)
    weights = {
        f"members.{number}.{name}": array
        for number, (_, arrays) in enumerate(members)
        for name, array in arrays.items()
    }
    dataset = load_data(data, reporter, model=info)
    folder, facts = RunFolder(output.folder), fingerprint(dataset, device=chosen_device.type)
    with begun_out(output, facts):
        seen = Seen.joined(map(load_seen, paths))
        save_artifact(make_folder(folder.model), info, weights, seen=seen)
        text = write_results(
            folder,
            dataset,
            device=chosen_device,
            precision=chosen_precision,
            views=compute.num_views,
            costs=Costs(num_members=len(members)),
        )
        write_run_page(folder)
    return text


def _merge(paths: Sequence[Path], infos: Sequence[ArtifactInfo], name: str | None) -> ArtifactInfo:
    if not MOST_MEMBERS >= len(paths) > 1:
        raise UsageError(
            f"an ensemble has 2 to {MOST_MEMBERS} members, not {len(paths)}; name other models."
        )
    first = infos[0]
    seen: dict[str, Path] = {}
    for path, info in zip(paths, infos, strict=True):
        if info.weights_sha256 in seen:
            raise DataError(
                f"{path} and {seen[info.weights_sha256]} are the same network; an ensemble is of "
                "different ones."
            )
        seen[info.weights_sha256] = path
        for what in ("class_names", "image", "trained_on.md5"):
            if attrgetter(what)(info) != attrgetter(what)(first):
                raise DataError(
                    f"{path} and {paths[0]} differ in {what}; the members of an ensemble have the "
                    "same classes, image size and training data."
                )
    members = [info.model.model_dump() for info in infos]
    model = ModelSettings(name="ensemble", options={"members": members})
    names = list(dict.fromkeys(info.settings.name for info in infos))
    name = name or f"ensemble-{'-'.join(names)}"[:64].rstrip("-")
    settings = changed(first.settings, {"name": name, "model": model.model_dump()})
    changes = {
        "model": model,
        "settings": settings,
        "calibration": None,
        "num_parameters": sum(info.num_parameters for info in infos),
    }
    return first.model_copy(update=changes)
