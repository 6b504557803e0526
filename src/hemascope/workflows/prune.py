"""`hemascope prune`: a narrower network made of a trained one."""

from pathlib import Path

from hemascope.core.errors import RESEARCH_USE_ONLY
from hemascope.inference.torch_engine import load_model
from hemascope.models.pruning import prune as cut
from hemascope.settings.output import Output
from hemascope.store.files import make_folder, write_text
from hemascope.store.model_folder import load_seen, save_artifact
from hemascope.store.provenance import begun_out, provenance
from hemascope.store.run_folder import RunFolder
from hemascope.workflows.plan import changed

_CONFIG = "train-on.toml"


def prune(path: Path, output: Output, *, keep: float) -> str:
    """Cuts channels out of a network and writes the narrower one, with settings to train it on.

    Those settings are the network's own, beginning with the weights that are left and with the
    whole network as the teacher.

    Args:
        path: The trained network.
        output: The folder for the narrower one.
        keep: Share of the channels to keep, in (0, 1).

    Returns:
        What was done and what to run next, for the terminal.

    Raises:
        UsageError: If the architecture cannot be pruned.
        DataError: If there is no whole model.
        OutputError: If `output` may not be written to.
    """
    info, model = load_model(path)
    out = output.folder
    smaller, weights = cut(info.model, model, keep)
    settings = changed(
        info.settings,
        {
            "name": f"{info.settings.name[:50]}-pruned-{round(100 * keep)}",
            "model": smaller.model_dump(),
            "training.freeze": False,
            "start": str(out),
            "teacher": str(path),
        },
    )
    trained = {name for name, _ in model.named_parameters()}
    num_parameters = sum(weights[name].numel() for name in trained)
    changes = {
        "model": smaller,
        "calibration": None,
        "num_parameters": num_parameters,
        "settings": settings,
    }
    with begun_out(output, provenance()):
        arrays = {name: tensor.contiguous().numpy() for name, tensor in weights.items()}
        save_artifact(
            make_folder(RunFolder(out).model),
            info.model_copy(update=changes),
            arrays,
            seen=load_seen(path),
        )
        write_text(out / _CONFIG, settings.to_toml())
    return (
        f"{info.num_parameters:,} parameters became {num_parameters:,}: {out}\n"
        f"Next: hemascope train --config {out / _CONFIG} --out NEW-FOLDER\n{RESEARCH_USE_ONLY}"
    )
