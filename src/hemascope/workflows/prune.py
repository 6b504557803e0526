"""`hemascope prune`: a narrower network made of a trained one, trained on."""

from pathlib import Path

from hemascope.inference.torch_engine import load_model
from hemascope.models import build_model
from hemascope.models.pruning import prune as cut
from hemascope.workflows.plan import changed
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import check_fit
from hemascope.workflows.sources import load_data
from hemascope.workflows.train import train


def prune(
    path: Path,
    source: str,
    out: Path,
    *,
    keep: float,
    epochs: int | None,
    seed: int | None,
    overwrite: bool,
    resume: bool,
    reporter: Reporter,
) -> Path:
    """Cuts channels out of a network and trains what is left, with the whole one as its teacher.

    Args:
        path: The trained network.
        source: What `--data` names.
        out: The new run folder.
        keep: Share of the channels to keep, in (0, 1).
        epochs: Instead of those that the network was trained for.
        seed: Instead of the network's own.
        overwrite: Whether an older run in `out` may be deleted.
        resume: Whether to go on with the run in `out`.
        reporter: Whom to tell.

    Returns:
        The run folder.

    Raises:
        UsageError: If the architecture cannot be pruned.
        DataError: If model and data do not fit together.
    """
    info, model = load_model(path)
    smaller, weights = cut(info.model, model, keep)
    dataset = load_data(source, reporter)
    check_fit(info, dataset)
    pruned = build_model(smaller, image_size=dataset.image_size, num_classes=len(dataset.classes))
    pruned.load_state_dict(weights)
    settings = changed(
        info.settings,
        {
            "name": f"{info.settings.name[:50]}-pruned-{round(100 * keep)}",
            "model": smaller.model_dump(),
            "training.epochs": epochs,
            "seed": seed,
            "teacher": str(path),
            "start": "",
        },
    )
    return train(
        settings,
        dataset,
        out,
        overwrite=overwrite,
        resume=resume,
        reporter=reporter,
        model=pruned,
    )
