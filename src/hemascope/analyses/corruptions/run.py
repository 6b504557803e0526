"""`hemascope corruptions`: accuracy under nine corruptions."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hemascope.analyses.corruptions.words import (
    Accuracies,
    Corruptions,
    Levels,
    RelativeError,
    corruptions_text,
    draw_corruptions,
)
from hemascope.core.errors import RESEARCH_USE_ONLY, UsageError
from hemascope.core.images import Dataset, LabeledImages
from hemascope.data.corruptions import CORRUPTIONS, NUM_SEVERITIES, corrupted
from hemascope.metrics import METRICS
from hemascope.report.text import seen_sentence
from hemascope.settings.compute import Compute
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.provenance import fingerprint, publish
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import Loaded, answers, check_same_input, count_seen, load_engine
from hemascope.workflows.sources import SplitChoice, load_split


def corruptions(
    path: Path,
    data: DataSettings,
    split: SplitChoice | None,
    *,
    against: Sequence[Path],
    compute: Compute,
    output: Output | None,
    reporter: Reporter,
) -> str:
    """Evaluates a model on every corruption in five severities.

    Args:
        path: A run folder or its model/.
        data: The data.
        split: Which images of it.
        against: Other models; the errors of the first of them count as 1.
        compute: How the models are asked.
        output: Gets corruptions.json, corruptions.md and figures/, if given.
        reporter: Gets progress and notes.

    Returns:
        The results as text.

    Raises:
        UsageError: If two models are called the same.
        DataError: If a model and the data do not fit together.
        OutputError: If results cannot be written.
    """
    paths = [path, *against]
    loaded = [load_engine(p, compute) for p in paths]
    names = [_name(one) for one in loaded]
    if len(set(names)) < len(names):
        raise UsageError(
            f"two of {', '.join(names)} are the same; choose other networks.", field="against"
        )
    dataset, images, split = load_split(data, split, reporter, model=loaded[0].info)
    for one in loaded[1:]:
        check_same_input(one.info, loaded[0].info, one.path)
    seen = {name: count_seen(one.path, images) for name, one in zip(names, loaded, strict=True)}
    warnings = [sentence for name, n in seen.items() if (sentence := seen_sentence(name, n))]
    networks = _accuracies(dict(zip(names, loaded, strict=True)), dataset, images, reporter)
    content = Corruptions(
        data=dataset.title,
        split=split,
        num_images=len(images),
        num_views=compute.num_views,
        image_size=dataset.image_size,
        warnings=warnings,
        corruptions={
            name: Levels(corruption.unit, corruption.levels)
            for name, corruption in CORRUPTIONS.items()
        },
        networks=networks,
        against=names[1] if against else None,
        relative_error=_relative(networks[names[0]], networks[names[1]]) if against else None,
    )
    text = "\n\n".join([corruptions_text(content), RESEARCH_USE_ONLY])
    if output is not None:
        publish(
            output,
            fingerprint(dataset, device=loaded[0].device.type),
            contents={"corruptions.json": content, "corruptions.md": text},
            draw=partial(draw_corruptions, content),
        )
    return text


def _name(loaded: Loaded) -> str:
    return f"{loaded.info.settings.name} (seed {loaded.info.settings.seed})"


def _accuracies(
    networks: Mapping[str, Loaded], dataset: Dataset, images: LabeledImages, reporter: Reporter
) -> dict[str, Accuracies]:
    """Of each network: accuracy on the images as they are and on each corruption, by severity."""

    def accuracy(one: Loaded, pixels: NDArray[np.uint8]) -> float:
        shown = LabeledImages(pixels, images.labels, images.ids)
        return METRICS["accuracy"](answers(one.engine, shown, dataset.classes))

    clean = {name: accuracy(one, images.images) for name, one in networks.items()}
    by_severity: dict[str, dict[str, list[float]]] = {
        name: {corruption: [] for corruption in CORRUPTIONS} for name in networks
    }
    with reporter.steps("corruptions", len(CORRUPTIONS) * NUM_SEVERITIES) as on_step:
        for corruption, _, pixels in corrupted(images.images):
            for name, one in networks.items():
                by_severity[name][corruption].append(accuracy(one, pixels))
            on_step()
    return {
        name: Accuracies(clean[name], found, float(np.mean(list(found.values()))))
        for name, found in by_severity.items()
    }


def _relative(ours: Accuracies, theirs: Accuracies) -> RelativeError:
    """Our error over theirs: of each corruption, and the mean of these.

    Source: mean corruption error, Hendrycks & Dietterich, ICLR 2019.
    """
    errors = {
        name: (1 - np.mean(ours.accuracy[name]), 1 - np.mean(theirs.accuracy[name]))
        for name in CORRUPTIONS
    }
    ratios = {name: float(one / other) if other else None for name, (one, other) in errors.items()}
    known = [ratio for ratio in ratios.values() if ratio is not None]
    return RelativeError(ratios, float(np.mean(known)) if known else None)
