"""`hemascope uncertainty`: which kind of doubt finds a network's errors."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hemascope.core.classes import ClassSet, Split
from hemascope.core.errors import RESEARCH_USE_ONLY, UsageError
from hemascope.core.images import Dataset, LabeledImages
from hemascope.core.predictions import Predictions
from hemascope.inference.laplace import fit_curvature
from hemascope.inference.torch_engine import (
    TorchEngine,
    dropout_samples,
    features,
    load_model,
    pick_device,
)
from hemascope.metrics.uncertainty import judge, together
from hemascope.report.text import file_stem, seen_on_val, seen_sentence
from hemascope.report.uncertainty import Uncertainty, uncertainty_text
from hemascope.settings.compute import Device
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.model_folder import ArtifactInfo
from hemascope.store.provenance import fingerprint, publish
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import answers, check_same_input, count_seen
from hemascope.workflows.sources import load_data

_PRIORS = (0.1, 1.0, 10.0, 100.0, 1000.0)


@dataclass(frozen=True)
class _Answers:
    """Several answers to each image of val and test: log-probabilities (S, N, C)."""

    val: NDArray[np.float64]
    test: NDArray[np.float64]
    note: str = ""


def uncertainty(
    paths: Sequence[Path],
    data: DataSettings,
    output: Output,
    *,
    num_samples: int,
    device: Device,
    reporter: Reporter,
) -> str:
    """Compares a network's own doubt with MC dropout, Laplace and a deep ensemble.

    Args:
        paths: Run folders or their model/; several make the deep ensemble.
        data: The data: train gives the Laplace approximation its curvature, val its prior and
            every temperature, test the figures.
        output: Gets uncertainty.json, uncertainty.md and the predictions of every way.
        num_samples: How many answers of MC dropout and Laplace.
        device: Where to compute.
        reporter: Gets progress and notes.

    Returns:
        The table as text.

    Raises:
        UsageError: If two of the models are called the same.
        DataError: If models and data do not fit together.
        OutputError: If `output` cannot be written.
    """
    chosen = pick_device(device)
    loaded = [(path, *load_model(path)) for path in paths]
    names = [f"{info.settings.name}-seed{info.settings.seed}" for _, info, _ in loaded]
    if len(set(names)) < len(names):
        raise UsageError(f"two of the models are called {names[0]}; name each once.")
    dataset = load_data(data, reporter, model=loaded[0][1])
    ways: dict[str, _Answers] = {}
    notes: list[str] = []
    singles: list[_Answers] = []
    for name, (path, info, model) in zip(names, loaded, strict=True):
        check_same_input(info, loaded[0][1], path)
        reporter.say(f"{name} ...")
        seen = count_seen(path, dataset.splits[Split.TEST])
        if sentence := seen_sentence(name, seen):
            notes.append(sentence)
        if on_val := seen_on_val(name, count_seen(path, dataset.splits[Split.VAL])):
            notes.append(on_val)
        own, why_not = _ways_of(info, model, dataset, chosen, num_samples)
        singles.append(own["by itself"])
        ways |= {f"{name}, {way}": answers for way, answers in own.items()}
        notes += [f"{name}, {note}" for note in why_not]
    if len(singles) > 1:
        ways[f"deep ensemble of {len(singles)}"] = _Answers(
            np.concatenate([one.val for one in singles]),
            np.concatenate([one.test for one in singles]),
        )
    val, test = (dataset.splits[split] for split in (Split.VAL, Split.TEST))
    judged = {
        name: judge(
            _predictions(way.val, val, dataset.classes),
            _predictions(way.test, test, dataset.classes),
        )
        for name, way in ways.items()
    }
    content = Uncertainty(
        data=dataset.title,
        num_test=len(test),
        num_samples=num_samples,
        notes=[*notes, *(f"{name}: {way.note}" for name, way in ways.items() if way.note)],
        ways={name: figures for name, (figures, _) in judged.items()},
    )
    text = "\n\n".join([uncertainty_text(content), RESEARCH_USE_ONLY])
    contents: dict[str, object] = {"uncertainty.json": content, "uncertainty.md": text}
    for name, (_, predictions) in judged.items():
        contents[f"predictions-test-{file_stem(name)}.csv"] = predictions
    publish(output, fingerprint(dataset, device=chosen.type), contents=contents)
    return text


def _ways_of(
    info: ArtifactInfo, model: nn.Module, dataset: Dataset, device: torch.device, num_samples: int
) -> tuple[dict[str, _Answers], list[str]]:
    """The ways in which one network can doubt, and why it cannot in others."""
    train, val, test = (dataset.splits[split].images for split in Split)
    engine = TorchEngine(model, device=device)
    on_val, on_test = (
        answers(engine, dataset.splits[split], dataset.classes).log_probs[None]
        for split in (Split.VAL, Split.TEST)
    )
    ways, why_not = {"by itself": _Answers(on_val, on_test)}, []
    try:
        on_val, on_test = (
            dropout_samples(model, images, device=device, num_samples=num_samples, seed=0)
            for images in (val, test)
        )
        ways["MC dropout"] = _Answers(on_val, on_test)
    except UsageError as error:
        why_not.append(f"MC dropout: {error}")
    try:
        weight, bias = _last_layer(info, model, dataset)
        given = [features(model, images, device=device) for images in (train, val, test)]
        labels = dataset.splits[Split.VAL].labels
        ways["Laplace"] = _laplace(given, weight, bias, labels, num_samples)
    except UsageError as error:
        why_not.append(f"Laplace: {error}")
    return ways, why_not


def _last_layer(
    info: ArtifactInfo, model: nn.Module, dataset: Dataset
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight (C, D) and bias (C,) of a last layer that was trained on this data.

    Raises:
        UsageError: If there is none.
    """
    if info.trained_on.md5 != dataset.md5:
        raise UsageError("it needs the images that the network was trained on, not other data.")
    name = getattr(model, "head_layer", None)
    head = model.get_submodule(name) if name else None
    if not isinstance(head, nn.Linear):
        raise UsageError("this architecture has no single linear last layer.")
    weight, bias = (part.detach().cpu().numpy() for part in (head.weight, head.bias))
    return weight, bias


def _laplace(
    given: Sequence[NDArray[np.float32]],
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    val_labels: NDArray[np.int64],
    num_samples: int,
) -> _Answers:
    """The Laplace approximation of a last layer, with the prior that val's NLL is lowest with."""
    train, val, test = given
    curvature = fit_curvature(train, weight, bias)

    def nll(log_probs: NDArray[np.float64]) -> float:
        return -float(together(log_probs)[np.arange(len(val_labels)), val_labels].mean())

    tried = {
        prior: curvature.samples(val, prior=prior, num_samples=num_samples, seed=0)
        for prior in _PRIORS
    }
    prior = min(tried, key=lambda prior: nll(tried[prior]))
    on_test = curvature.samples(test, prior=prior, num_samples=num_samples, seed=1)
    return _Answers(tried[prior], on_test, f"prior precision {prior:g}, of val")


def _predictions(
    given: NDArray[np.float64], images: LabeledImages, classes: ClassSet
) -> list[Predictions]:
    return [
        Predictions(images.ids, one.astype(np.float32), images.labels, classes) for one in given
    ]
