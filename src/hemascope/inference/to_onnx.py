"""PyTorch networks as ONNX graphs: exact, in half precision, or quantized to 8-bit integers."""

import io
import logging
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from onnxruntime.transformers.float16 import convert_float_to_float16
from torch import Tensor, nn

from hemascope.core.image_spec import SAME, SQUARE, TILE_SHARE, ImageSpec
from hemascope.inference.torch_engine import to_input
from hemascope.store.model_folder import Head

_NUM_SAMPLES, _BATCH = 4096, 64  # images that int8 is quantized by, and how many at a time
_WHOLE = "Conv"  # what is quantized: nearly all of the work


def has_maps(model: nn.Module) -> bool:
    """Whether a network says what each place of an image adds to its logits."""
    return hasattr(model, "forward_with_maps")


def has_features(model: nn.Module) -> bool:
    """Whether a network ends in one linear layer, whose inputs are its features."""
    name = getattr(model, "head_layer", None)
    return bool(name) and isinstance(model.get_submodule(name), nn.Linear)


def to_onnx(model: nn.Module, *, image_size: int) -> bytes:
    """A network as an ONNX graph from uint8 pixels `images` (N, H, H, 3) to `logits` (N, C).

    Where the network has them, `maps` (N, C, h, w) and `features` (N, K) come out as well; see
    `has_maps` and `has_features`.

    Args:
        model: Maps (N, 3, H, H) images to logits.
        image_size: H.
    """
    names = ["logits", *["maps"] * has_maps(model), *["features"] * has_features(model)]
    images = torch.zeros((2, image_size, image_size, 3), dtype=torch.uint8)
    with _quietly():
        program = torch.onnx.export(
            _FromPixels(model).eval(),
            (images,),
            dynamo=True,
            input_names=["images"],
            output_names=names,
            dynamic_shapes={"images": {0: torch.export.Dim("N")}},
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    return _finished(program.model_proto)


def to_int8(graph: bytes, samples: NDArray[np.uint8]) -> bytes:
    """A graph whose convolutions compute in 8-bit integers, with 7-bit weights.

    With 8-bit weights, sums would overflow on processors without integer instructions (VNNI).

    Args:
        graph: By `to_onnx`.
        samples: Images of the train split; of some of them the range of every number is learned.

    Source: static quantization, onnxruntime.quantization, in the QDQ format.
    """
    chosen = np.random.default_rng(0).permutation(len(samples))[:_NUM_SAMPLES]
    with TemporaryDirectory() as name, _quietly():
        folder = Path(name)
        (folder / "fp32.onnx").write_bytes(graph)
        quant_pre_process(
            str(folder / "fp32.onnx"), str(folder / "ready.onnx"), skip_symbolic_shape=True
        )
        quantize_static(
            str(folder / "ready.onnx"),
            str(folder / "int8.onnx"),
            _Samples(samples[chosen]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[_WHOLE],
            per_channel=True,
            reduce_range=True,
            calibrate_method=CalibrationMethod.MinMax,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return _finished(onnx.load(str(folder / "int8.onnx")))


def to_fp16(graph: bytes) -> bytes:
    """A graph that computes in half precision: half the size, for processors that have it."""
    with _quietly():
        half = convert_float_to_float16(onnx.load_from_string(graph), keep_io_types=True)
    return _finished(half)


class _FromPixels(nn.Module):
    """A network with its preprocessing, so that nobody can forget it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._features: list[Tensor] = []
        if has_features(model):
            head = model.get_submodule(str(model.head_layer))
            head.register_forward_pre_hook(lambda _, inputs: self._features.append(inputs[0]))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        inputs = to_input(images)
        if has_maps(self.model):
            outputs = self.model.forward_with_maps(inputs)  # type: ignore[operator]
        else:
            outputs = (self.model(inputs).float(),)
        return (*outputs, *(features.float() for features in self._features[-1:]))


class _Samples(CalibrationDataReader):
    """Hands out quantization samples in batches."""

    def __init__(self, samples: NDArray[np.uint8]) -> None:
        size = min(_BATCH, len(samples))
        starts = range(0, len(samples) - size + 1, size)  # all alike: histograms are stacked
        self._batches = iter([samples[i : i + size] for i in starts])

    def get_next(self) -> Any:
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}


def with_properties(graph: bytes, properties: Mapping[str, str]) -> bytes:
    """The same graph with metadata properties."""
    model = onnx.load_from_string(graph)
    onnx.helper.set_model_props(model, dict(properties))
    return model.SerializeToString()


def with_preparation(
    graph: bytes, spec: ImageSpec, temperature: float, head: Head | None = None
) -> bytes:
    """A graph from `photographs` of any size, uint8 (N, height, width, 3), to `probs` (N, C).

    Crop, resize and temperature are inside; the JPEG round trip of a spec and framing by the cells
    are not. All photographs of a call have one size.

    Args:
        graph: By `to_onnx`, or made from it.
        spec: How photographs become its images.
        temperature: What divides the logits.
        head: The last layer, where it is not the graph's own.
    """
    network = onnx.load_from_string(graph)
    text = Path(__file__).with_name("preparation.onnxtxt").read_text("utf-8")
    known = spec.geometries or ((-1, 0.0),)
    values = {
        "ir": network.ir_version,
        "opset": next(one.version for one in network.opset_import if not one.domain),
        "size": spec.size,
        "num_known": len(known),
        "known_sizes": ", ".join(f"{size}.0" for size, _ in known),
        "known_shares": ", ".join(repr(float(share)) for _, share in known),
        "same": SAME,
        "square": SQUARE,
        "tile": TILE_SHARE * spec.photo_size if spec.crop < 1 else 0.0,
        "crop": float(spec.crop),
    }
    before = onnx.parser.parse_model(Template(text).substitute(values))
    model = onnx.compose.merge_models(
        before, onnx.compose.add_prefix(network, "network/"), [("images", "network/images")]
    )
    logits, constants = "network/logits", {"temperature": np.array(temperature, dtype=np.float32)}
    if head:
        logits, constants = "logits", constants | {"w": head.weights, "b": head.biases}
        inputs = ["network/features", "w", "b"]
        model.graph.node.append(onnx.helper.make_node("Gemm", inputs, [logits], transB=1))
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for kind, *names in (("Div", logits, "temperature", "scaled"), ("Softmax", "scaled", "probs")):
        model.graph.node.append(onnx.helper.make_node(kind, names[:-1], names[-1:]))
    del model.graph.output[:]
    found = onnx.helper.make_tensor_value_info("probs", onnx.TensorProto.FLOAT, ("N", "C"))
    model.graph.output.append(found)
    return _finished(model)


def _finished(model: onnx.ModelProto) -> bytes:
    """The file's bytes, without the exporter's notes on where in whose folders the code lay."""
    for part in (model, model.graph, *model.graph.node, *model.graph.value_info):
        del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    for part in (*model.graph.node, model.graph, model):
        part.doc_string = ""
    onnx.checker.check_model(model)
    return model.SerializeToString()


@contextmanager
def _quietly() -> Generator[None]:
    """Keeps what exporters print and warn of from the user, whose errors are exceptions."""
    logging_was = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging_was)
