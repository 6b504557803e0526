"""`hemascope ensemble`: several trained networks in one artifact."""

from collections.abc import Sequence
from pathlib import Path

from hemascope.artifact import ArtifactInfo, load_artifact, save_artifact
from hemascope.config import Device, ModelSettings, PrecisionChoice
from hemascope.errors import DataError
from hemascope.files import MARK, make_folder, make_out, write_json
from hemascope.inference.torch_engine import pick_device, pick_precision
from hemascope.workflows.environment import fingerprint
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import check_fit, usual_precision, write_results
from hemascope.workflows.sources import load_data


def ensemble(
    paths: Sequence[Path],
    source: str,
    out: Path,
    *,
    device: Device,
    precision: PrecisionChoice | None,
    views: int,
    overwrite: bool,
    reporter: Reporter,
) -> str:
    """Puts the members into one artifact and evaluates it.

    Returns:
        The results as text.

    Raises:
        DataError: If the members have different classes, image sizes or training data.
        OutputError: If the results cannot be written.
    """
    chosen_device = pick_device(device)
    members = [load_artifact(path) for path in paths]
    infos = [info for info, _ in members]
    chosen_precision = pick_precision(precision or usual_precision(infos), chosen_device)
    info = _merge(paths, infos)
    weights = {
        f"members.{number}.{name}": array
        for number, (_, arrays) in enumerate(members)
        for name, array in arrays.items()
    }
    dataset = load_data(source, reporter)
    check_fit(info, dataset)
    make_out(out, overwrite=overwrite)
    write_json(out / MARK, fingerprint(dataset, device=chosen_device.type))
    save_artifact(make_folder(out / "model"), info, weights)
    return write_results(
        out,
        dataset,
        device=chosen_device,
        precision=chosen_precision,
        views=views,
        more={"num_members": len(members)},
    )


def _merge(paths: Sequence[Path], infos: Sequence[ArtifactInfo]) -> ArtifactInfo:
    first = infos[0]
    for path, info in zip(paths, infos, strict=True):
        for what in ("class_names", "preprocessing", "trained_on"):
            if getattr(info, what) != getattr(first, what):
                raise DataError(
                    f"{path} and {paths[0]} differ in {what}; the members of an ensemble have the "
                    "same classes, image size and training data."
                )
    members = [info.model.model_dump() for info in infos]
    model = ModelSettings(name="ensemble", options={"members": members})
    names = list(dict.fromkeys(info.settings.name for info in infos))
    settings = first.settings.model_copy(
        update={"name": f"ensemble-{'-'.join(names)}"[:64].rstrip("-"), "model": model}
    )
    changes = {
        "model": model,
        "settings": settings,
        "num_parameters": sum(info.num_parameters for info in infos),
    }
    return first.model_copy(update=changes)
