"""`hemascope export`: a trained network as ONNX graphs, which need no torch, and how to decide."""

import json
from pathlib import Path

import numpy as np
from torch import nn

from hemascope import __version__
from hemascope.core.classes import Split
from hemascope.core.errors import RESEARCH_USE_ONLY, DataError, UsageError
from hemascope.core.images import Dataset, LabeledImages
from hemascope.core.predictions import Predictions
from hemascope.data.collections import collections
from hemascope.inference.decisions import decide
from hemascope.inference.efficiency import latency_ms
from hemascope.inference.guard import fit_guard
from hemascope.inference.onnx_engine import OnnxEngine
from hemascope.inference.predictor import Predictor
from hemascope.inference.to_onnx import (
    has_features,
    has_maps,
    to_fp16,
    to_int8,
    to_onnx,
    with_preparation,
    with_properties,
)
from hemascope.inference.torch_engine import TorchEngine, load_model, pick_device
from hemascope.inference.views import ViewsEngine
from hemascope.metrics import METRICS
from hemascope.report.export import card_text, export_text
from hemascope.report.text import seen_on_val
from hemascope.settings.about import About, DataSource
from hemascope.settings.compute import OnnxPrecision
from hemascope.settings.data import DataSettings
from hemascope.settings.output import Output
from hemascope.store.files import write_bytes, write_text
from hemascope.store.model_folder import (
    FORMAT_VERSION,
    ArtifactInfo,
    Head,
    OnnxGraph,
    find_artifact,
    load_artifact,
    load_graph,
    load_seen,
    name_graph,
    save_artifact,
)
from hemascope.store.provenance import begun_out, fingerprint, provenance
from hemascope.store.run_folder import RunFolder
from hemascope.workflows.progress import Reporter
from hemascope.workflows.results import answers, count_seen
from hemascope.workflows.sources import load_data

_LARGEST_DIFFERENCE = 1e-3  # of a logit in fp32, of about 10
_LARGEST_LOSS = 0.002  # of val accuracy, in int8 and fp16


def export(
    path: Path,
    data: DataSettings,
    output: Output,
    *,
    int8: bool,
    fp16: bool,
    weights: bool = False,
    about: About | None = None,
    reporter: Reporter,
) -> str:
    """Writes a folder with the network in ONNX and everything that an answer needs.

    Temperature, prediction sets and the threshold for abstaining are fitted on val for each graph
    by itself; test is not looked at.

    Args:
        path: A run folder or its model/.
        data: The data it was trained on.
        output: The folder for the exported model.
        int8: Whether to add an int8 graph.
        fp16: Whether to add one in half precision.
        weights: Whether to keep the weights for PyTorch too, so that training can start from them.
        about: The license of the weights and the sources of the data; by default what is known of
            a published collection.
        reporter: Gets progress and notes.

    Returns:
        What came out, as text.

    Raises:
        DataError: If model and data do not fit together, a graph does not answer as the network
            does.
        OutputError: If `output` cannot be written.
    """
    info, model = load_model(path)
    dataset = load_data(data, reporter, model=info)
    if dataset.md5 != info.trained_on.md5:
        raise DataError(
            f"{path} was trained on other data than {data.title}: {info.trained_on.title}, md5 "
            f"{info.trained_on.md5}; give that, since thresholds are fitted on its val split."
        )
    if seen := seen_on_val(info.settings.name, count_seen(path, dataset.splits[Split.VAL])):
        reporter.say(f"Warning: {seen}")
    about = about or About(sources=(_source(dataset),))
    info = info.model_copy(update={"about": about})
    train, val = dataset.splits[Split.TRAIN].images, dataset.splits[Split.VAL]
    with reporter.steps("exporting", 2 + int8 + fp16) as on_step:
        exact = to_onnx(model, image_size=info.image.size)
        made: dict[OnnxPrecision, bytes] = {"fp32": exact}
        on_step()
        if int8:
            made["int8"] = to_int8(exact, train)
            on_step()
        if fp16:
            made["fp16"] = to_fp16(exact)
            on_step()
        torch_says = answers(TorchEngine(model, device=pick_device("cpu")), val, info.classes)
        graphs: list[OnnxGraph] = []
        for precision, content in made.items():
            graph, made[precision] = _assess(content, precision, torch_says, val, model, info)
            graphs.append(graph)
        on_step()
    guard = None
    if has_features(model):
        engine = OnnxEngine(made["int8" if int8 else "fp32"], origin="the graph")
        layer = model.get_submodule(str(model.head_layer))
        own = Head(*(getattr(layer, name).detach().numpy() for name in ("weight", "bias")))
        of_train, of_val = engine.features(train), engine.features(val.images)
        labels = dataset.splits[Split.TRAIN].labels
        guard = fit_guard(of_train, labels, of_val, val.labels, val.images, own).arrays()
    fastest = min(graphs, key=lambda graph: graph.latency_ms_batch128)
    changes: dict[str, object] = {
        "format_version": FORMAT_VERSION,
        "hemascope_version": __version__,
        "onnx": tuple(graphs),
        "recommended": fastest.precision,
        "settings": info.settings.model_copy(update={"data": DataSettings(sources=())}),
    }
    info = info.model_copy(update=changes)
    with begun_out(output, fingerprint(dataset, device="cpu")) as out:
        tensors = load_artifact(path)[1] if weights else None
        save_artifact(
            out, info, tensors, seen=load_seen(path), graphs=list(made.values()), guard=guard
        )
        run = RunFolder(find_artifact(path).parent)
        results = run.read_results() if run.is_finished else None
        base = run.read_fingerprint().base if run.is_finished else None
        card = card_text(info, dataset.describe(), results, base)
        write_text(out / "MODEL_CARD.md", card)
    return export_text(info, output.folder)


def export_whole(model: Path, output: Output, *, crop: float | None = None, frame: str = "") -> str:
    """Writes one graph of an exported model that takes photographs and gives probabilities.

    Args:
        model: A folder of `export` or `adapt`, or the name of a packaged model.
        output: The folder for it.
        crop: The share of a photograph's central square to use, as in `predict`.
        frame: "whole" or a frame file, as in `predict`.

    Returns:
        What came out, as text.

    Raises:
        UsageError: If the graph cannot do what is asked.
        DataError: If there is no exported model.
        OutputError: If `output` cannot be written.
    """
    info, graph, content = load_graph(model, None)
    predictor = Predictor(model, crop=crop, frame=frame)
    spec = predictor.spec
    if not 0 < spec.crop <= 1 or spec.frame in ("cell", "centered"):
        raise UsageError(
            "a graph cannot look for cells or add background; give a `crop` up to 1 or no `frame`.",
            field="frame" if frame else "crop",
        )
    decision, jpeg = graph.decisions[0], info.image.jpeg_quality
    least = predictor.decision_of(predictor.layer).abstain_below  # a moved layer's is stricter
    content = with_preparation(content, spec, decision.temperature, predictor.engine.head)
    lacks = ["the guard", "the mean over eight views"]
    lacks += ["framing by the cells (images of other sizes are used whole)"] * spec.is_undecided
    lacks += [f"the JPEG round trip of quality {jpeg}"] if jpeg else []
    missing = f"not in the graph: {', '.join(lacks)}"
    said = {
        "input": "photographs: RGB pixels, uint8, NHWC, of any size, one in a call",
        "image_spec": spec.model_dump_json(),
        "preparation": f"crop, resize and temperature are in the graph; {missing}",
        "output": "probs: the probability of each class",
        "abstain_below": f"{least:.6g}",
    }
    properties = graph_properties(info, decision.temperature) | said
    with begun_out(output, provenance()) as out:
        file = out / "photographs.onnx"
        write_bytes(file, with_properties(content, properties))
    return "\n".join(
        [
            f"{info.settings.name} with its preparation, from {graph.precision}: {file} "
            f"({len(content) / 1e6:.2f} MB; {missing})",
            RESEARCH_USE_ONLY,
        ]
    )


def _source(dataset: Dataset) -> DataSource:
    """What is known of where data comes from."""
    known = collections()[dataset.collection] if dataset.collection else None
    train = len(dataset.splits[Split.TRAIN])
    if known is None:
        return DataSource(title=dataset.title, num_images=train)
    return DataSource(title=known.title, license=known.license, url=known.url, num_images=train)


def _assess(
    content: bytes,
    precision: OnnxPrecision,
    torch_says: Predictions,
    val: LabeledImages,
    model: nn.Module,
    info: ArtifactInfo,
) -> tuple[OnnxGraph, bytes]:
    """What a graph is like on val, what is fitted to its answers there, and the file to write.

    Raises:
        DataError: If it does not answer as the network does.
    """
    engine = OnnxEngine(content, origin=f"the {precision} graph")
    on_val = answers(engine, val, torch_says.classes)
    accuracy = METRICS["accuracy"](on_val)
    difference = float(np.abs(on_val.logits - torch_says.logits).max())
    if precision == "fp32":
        others = int((on_val.predicted != torch_says.predicted).sum())
        if others or difference > _LARGEST_DIFFERENCE:
            raise DataError(
                f"the ONNX graph answers {others} of {len(val)} images of val with another class "
                f"than PyTorch, with logits up to {difference:.2g} apart; it was not written."
            )
    elif (loss := METRICS["accuracy"](torch_says) - accuracy) > _LARGEST_LOSS:
        raise DataError(
            f"{precision} costs {100 * loss:.2f} points of accuracy on val, more than the "
            f"{100 * _LARGEST_LOSS:g} allowed; leave `{precision}` out."
        )
    views = answers(ViewsEngine(engine), val, torch_says.classes)
    decisions = decide(on_val, num_views=1), decide(views, num_views=8)
    content = with_properties(content, graph_properties(info, decisions[0].temperature))
    file, sha256 = name_graph(precision, content)
    graph = OnnxGraph(
        precision=precision,
        file=file,
        sha256=sha256,
        size_bytes=len(content),
        has_maps=has_maps(model),
        has_features=has_features(model),
        val_accuracy=accuracy,
        max_logit_difference=difference,
        latency_ms_batch1=latency_ms(engine, val.images, batch_size=1),
        latency_ms_batch128=latency_ms(engine, val.images, batch_size=128),
        decisions=decisions,
    )
    return graph, content


def graph_properties(info: ArtifactInfo, temperature: float | None = None) -> dict[str, str]:
    """The metadata of a graph's file, for programs that read nothing else."""
    softmax = "the temperature in artifact.json" if temperature is None else f"{temperature:.6g}"
    jpeg = info.image.jpeg_quality
    return {
        "notice": RESEARCH_USE_ONLY,
        "license": info.about.license,
        "data_licenses": info.about.source_licenses,
        "class_names": json.dumps(info.class_names, ensure_ascii=False),
        "input": "images: RGB pixels, uint8, NHWC; scaling and white point are in the graph",
        "preparation": f"a square crop of the cell, resized to {info.image.size} pixels (bilinear, "
        f"antialiased); {f'then a JPEG round trip of quality {jpeg}' if jpeg else 'no JPEG step'}",
        "image_spec": info.image.model_dump_json(),
        "output": f"logits; confidence is softmax(logits / {softmax})",
        "trained_on": info.trained_on.title,
    }
