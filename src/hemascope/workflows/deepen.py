"""The last blocks of a network fitted to a few labeled cells; its last layer comes fitted."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hemascope.core.errors import DataError
from hemascope.core.images import LabeledImages, symmetry
from hemascope.inference.guard import fit_guard
from hemascope.inference.onnx_engine import OnnxEngine
from hemascope.inference.to_onnx import to_int8, to_onnx, with_properties
from hemascope.inference.torch_engine import load_model, to_input
from hemascope.models.hemanet import HemaNet
from hemascope.settings.compute import OnnxPrecision
from hemascope.store.model_folder import Head, OnnxGraph, name_graph
from hemascope.workflows.adapt import Deepened, Own
from hemascope.workflows.export import graph_properties

Images = NDArray[np.uint8]
Rows = NDArray[np.intp]
Logits = NDArray[np.float32]

_MOST_CELLS = 4000  # whose eight views are kept in memory as a block sees them: 256 KB each
_BATCH = 32
_PASSES = 15  # over the labeled cells
_LEAST_STEPS = 60
_LEARNING_RATE = 1e-3
_LEAST_AGREEMENT = 0.99  # of int8 with fp32
_AT_ONCE = 128  # images


class Deeper:
    """Fits the last blocks of a network to labeled cells, starting from a fitted last layer.

    The layers before them stay as they are, so each view of a cell passes them once.

    Args:
        model: A model folder with weights for PyTorch, or its name.
        cells: The labeled cells, labels in [0, C), at most `MOST_CELLS`.
        fit_head: The last layer for some of them.
        own: What the model is not to forget; half of every batch.

    Raises:
        DataError: If the model has no weights for PyTorch or is not made of blocks, or there are
            too many cells.
    """

    def __init__(
        self,
        model: Path,
        cells: LabeledImages,
        fit_head: Callable[[Rows], Head],
        own: Own | None = None,
    ) -> None:
        self._info, network = load_model(model)
        if not isinstance(network, HemaNet):
            raise DataError(f"{self._info.settings.name} is not made of blocks")
        if len(cells) > _MOST_CELLS:
            raise DataError(f"that is for at most {_MOST_CELLS:,} cells; train with `start`")
        self.most_blocks = len(network.blocks)
        self._network = network.eval()
        self._cells, self._fit_head, self._own = cells, fit_head, own
        self._given: tuple[int, Tensor, Tensor | None] = (0, torch.empty(0), None)

    def logits(self, blocks: int, fitted: Rows, judged: Rows) -> Logits:
        """Logits (8, n, C) of some cells by a network whose last blocks were fitted to others."""
        network = self._tuned(blocks, fitted)
        views, _ = self._inputs(blocks)
        with torch.inference_mode():
            return np.stack([network.after(view[judged].float(), blocks).numpy() for view in views])

    def fitted(self, blocks: int, accuracy: float) -> Deepened:
        """The network fitted to all cells.

        Args:
            blocks: How many of the last blocks.
            accuracy: What cross-validation says of it.
        """
        network = self._tuned(blocks, np.arange(len(self._cells)))
        graphs, contents = self._graphs(network, accuracy)
        engine = OnnxEngine(contents[-1], origin="the graph")
        layer = Head(*(p.detach().numpy() for p in (network.head.weight, network.head.bias)))
        train = val = self._cells.take(np.arange(0, len(self._cells), 2))
        of_own = None
        if self._own:
            train, val = self._own.train, self._own.val
            of_own = float((engine.logits(val.images).argmax(1) == val.labels).mean())
        of_train, of_val = (engine.features(part.images) for part in (train, val))
        guard = fit_guard(of_train, train.labels, of_val, val.labels, val.images, layer)
        weights = {name: array.numpy() for name, array in network.state_dict().items()}
        return Deepened(weights, tuple(graphs), contents, guard, of_own)

    def _graphs(self, network: HemaNet, accuracy: float) -> tuple[list[OnnxGraph], list[bytes]]:
        """Graphs of the precisions that the model had; int8 only if it answers as fp32 does."""
        known = {graph.precision: graph for graph in self._info.onnx}
        exact = to_onnx(network, image_size=self._info.image.size)
        made: dict[OnnxPrecision, bytes] = {"fp32": exact}
        if "int8" in known:
            own = [self._own.train.images] if self._own else []
            samples = np.concatenate([*own, *(symmetry(self._cells.images, v) for v in range(8))])
            made["int8"] = to_int8(exact, samples)
        graphs: list[OnnxGraph] = []
        contents: list[bytes] = []
        expected = OnnxEngine(exact, origin="the graph").logits(self._cells.images)
        for precision, content in made.items():
            found = OnnxEngine(content, origin="the graph").logits(self._cells.images)
            if (found.argmax(1) == expected.argmax(1)).mean() < _LEAST_AGREEMENT:
                continue
            like = next(
                (g for g in self._info.onnx if g.precision == precision), self._info.onnx[0]
            )
            content = with_properties(content, graph_properties(self._info))
            file, sha256 = name_graph(precision, content)
            changes: dict[str, object] = {
                "precision": precision,
                "file": file,
                "sha256": sha256,
                "size_bytes": len(content),
                "has_maps": True,
                "val_accuracy": accuracy,
                "max_logit_difference": float(np.abs(found - expected).max()),
            }
            graphs.append(like.model_copy(update=changes))
            contents.append(content)
        return graphs, contents

    def _inputs(self, blocks: int) -> tuple[Tensor, Tensor | None]:
        """What the last blocks are given: of eight views (8, N, ...), and of `own` (M, ...)."""
        if self._given[0] != blocks:
            views = [self._before(symmetry(self._cells.images, v), blocks) for v in range(8)]
            own = self._before(self._own.train.images, blocks) if self._own else None
            self._given = (blocks, torch.stack(views), own)
        return self._given[1], self._given[2]

    @torch.inference_mode()
    def _before(self, images: Images, blocks: int) -> Tensor:
        parts = torch.from_numpy(images).split(_AT_ONCE)
        return torch.cat([self._network.before(to_input(part), blocks).half() for part in parts])

    def _tuned(self, blocks: int, rows: Rows) -> HemaNet:
        """The network with its last blocks fitted to some cells, all classes drawn alike."""
        views, of_own = self._inputs(blocks)
        network = deepcopy(self._network)
        head = self._fit_head(rows)
        network.head = nn.Linear(head.weights.shape[1], len(head.biases))
        network.head.load_state_dict(
            {"weight": torch.from_numpy(head.weights), "bias": torch.from_numpy(head.biases)}
        )
        labels = torch.from_numpy(self._cells.labels[rows])
        own_labels = torch.from_numpy(self._own.train.labels) if self._own else labels
        changing = [*network.blocks[-blocks:].parameters(), *network.head.parameters()]
        steps = max(_PASSES * len(rows) // _BATCH, _LEAST_STEPS)
        optimizer = torch.optim.AdamW(changing, lr=_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, steps)
        draws = torch.Generator().manual_seed(0)

        def drawn(classes: Tensor) -> Tensor:
            weights = 1 / classes.bincount()[classes]
            return torch.multinomial(weights, _BATCH, replacement=True, generator=draws)

        for _ in range(steps):
            chosen = drawn(labels)
            view = torch.randint(len(views), (_BATCH,), generator=draws)
            inputs, wanted = views[view, torch.from_numpy(rows)[chosen]], labels[chosen]
            if of_own is not None:
                chosen = drawn(own_labels)
                inputs = torch.cat([inputs, of_own[chosen]])
                wanted = torch.cat([wanted, own_labels[chosen]])
            loss = cross_entropy(network.after(inputs.float(), blocks), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        return network
