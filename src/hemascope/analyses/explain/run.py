"""`hemascope explain`: saliency maps of the most and least confident predictions."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.analyses.explain.words import (
    Curves,
    Explained,
    Explanations,
    draw_explanations,
    explain_text,
)
from hemascope.core.predictions import Predictions
from hemascope.inference.explanations import (
    METHODS,
    deletion_and_insertion,
    explain_all,
    grad_cam,
    has_grad_cam,
)
from hemascope.inference.torch_engine import TorchEngine, load_model, pick_device
from hemascope.report.figures import confident_errors
from hemascope.report.text import seen_sentence
from hemascope.settings.compute import Device
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.provenance import fingerprint, publish
from hemascope.store.run_folder import RunFolder
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import answers, count_seen
from hemascope.workflows.sources import SplitChoice, load_split

_NUM_CURVES = 256  # images of which insertion and deletion are computed


def explain(
    path: Path,
    data: DataSettings,
    split: SplitChoice | None,
    output: Output,
    *,
    num_images: int,
    device: Device,
    reporter: Reporter,
) -> str:
    """Draws contact sheets of the most confident errors and least confident correct answers.

    Args:
        path: A run folder or its model/.
        data: The data.
        split: Which images of it.
        output: Gets explanations.json and figures/.
        num_images: How many errors and how many correct predictions.
        device: Where to compute.
        reporter: Gets progress and notes.

    Returns:
        What was found, as text.

    Raises:
        DataError: If model and data do not fit together, or the model answers nonsense.
        OutputError: If `output` cannot be written.
    """
    chosen_device = pick_device(device)
    info, model = load_model(path)
    dataset, images, split = load_split(data, split, reporter, model=info)
    found = answers(TorchEngine(model, device=chosen_device), images, dataset.classes)
    warning = seen_sentence(info.settings.name, count_seen(path, images))
    methods = {n: m for n, m in METHODS.items() if m is not grad_cam or has_grad_cam(model)}
    groups = {
        "errors": confident_errors(found, num_images),
        "hits": least_confident_correct(found, num_images),
    }
    maps = {
        group: {
            name: explain_all(method, model, images.images[chosen], found.predicted[chosen])
            for name, method in methods.items()
            if len(chosen)
        }
        for group, chosen in groups.items()
    }
    sample = np.random.default_rng(0).permutation(len(images))[:_NUM_CURVES]
    pixels, predicted = images.images[sample], found.predicted[sample]
    curves: dict[str, Curves] = {}
    with reporter.steps("insertion and deletion", len(methods) + 1) as on_step:
        noise = np.random.default_rng(1).random(pixels.shape[:3]).astype(np.float32)
        orders = {
            **{n: explain_all(m, model, pixels, predicted) for n, m in methods.items()},
            "random order": noise,
        }
        for name, order in orders.items():
            deletion, insertion = deletion_and_insertion(model, pixels, predicted, order)
            curves[name] = Curves(deletion.mean(axis=0).tolist(), insertion.mean(axis=0).tolist())
            on_step()
    content = Explanations(
        name=info.settings.name,
        data=dataset.title,
        split=split,
        warnings=[warning] if warning else [],
        methods=list(methods),
        num_errors=int((found.predicted != found.labels).sum()),
        num_images=len(images),
        num_in_curves=len(sample),
        curves=curves,
        errors=[_explained(found, i) for i in groups["errors"]],
        hits=[_explained(found, i) for i in groups["hits"]],
    )
    shown = {group: images.images[chosen] for group, chosen in groups.items()}
    publish(
        output,
        fingerprint(dataset, device=chosen_device.type),
        contents={"explanations.json": content},
        draw=partial(draw_explanations, content, shown, maps),
    )
    return f"{explain_text(content)}\nFigures: {RunFolder(output.folder).figures}"


def least_confident_correct(found: Predictions, count: int) -> NDArray[np.intp]:
    """The least confident correct predictions, the least confident first."""
    right = np.flatnonzero(found.predicted == found.labels)
    return right[np.argsort(found.probs.max(axis=1)[right], kind="stable")][:count]


def _explained(found: Predictions, i: int) -> Explained:
    names = found.classes.names
    return Explained(
        id=found.ids[i],
        label=names[found.labels[i]],
        predicted=names[found.predicted[i]],
        confidence=float(found.probs[i].max()),
    )
