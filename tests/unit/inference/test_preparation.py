"""The preparation inside a graph gives the pixels that `ImageSpec` gives, bit for bit."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from PIL import Image

from hemascope.core.image_spec import ImageSpec
from hemascope.inference.to_onnx import with_preparation
from hemascope.store.model_folder import load_graph


def _images_of(spec: ImageSpec, photograph: Any) -> Any:
    content = load_graph(Path("hemanet-64-labs"), None)[2]
    model = onnx.load_from_string(with_preparation(content, spec, 1.0))
    kind = onnx.TensorProto.UINT8
    model.graph.output.append(onnx.helper.make_tensor_value_info("images", kind, None))
    session = ort.InferenceSession(model.SerializeToString())
    found: Any = session.run(["images"], {"photographs": photograph[None]})
    return found[0][0]


@pytest.mark.parametrize(
    ("height", "width", "changes"),
    [
        (64, 64, {"crop": 0.5}),
        (96, 150, {}),
        (151, 90, {"crop": 0.7}),
        (40, 41, {"crop": 0.9, "photo_size": 360}),
        (200, 204, {"crop": 0.8, "geometries": ((200, 0.6),)}),
    ],
)
def test_it_crops_and_resizes_as_predict_does(
    height: int, width: int, changes: dict[str, Any]
) -> None:
    spec = ImageSpec(size=64).model_copy(update=changes)
    photograph = np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)
    expected = spec.prepare([Image.fromarray(photograph)]).images[0]
    np.testing.assert_array_equal(_images_of(spec, photograph), expected)
