"""Our own network: residual, inside the study's budget."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hemascope.models.links import Link


class HemaNet(nn.Module):
    """A small residual network; its preset has fewer parameters than the study's CNN.

    The images are standardized by what training saw, pass one convolution, and then residual
    blocks: "basic" ones of two convolutions, or "bottleneck" ones, which compute in fewer channels
    than they pass on. `stem_stride` and `strides` say which of them halve the resolution. The head
    sees mean and maximum of every feature over the image. `inner` are the widths inside the blocks,
    which pruning makes smaller; by default those of the outputs. Maps images (N, 3, H, H) in [0, 1]
    to logits (N, C).

    Source: both blocks, He et al., Deep Residual Learning, CVPR 2016; shortcuts with mean pooling,
    He et al., Bag of Tricks, CVPR 2019.
    """

    head_layer = "head"

    def __init__(
        self,
        *,
        image_size: int,
        num_classes: int,
        stem: int,
        stem_stride: int = 1,
        block: Literal["basic", "bottleneck"] = "basic",
        widths: Sequence[int],
        strides: Sequence[int],
        inner: Sequence[int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        del image_size  # any: the head pools
        self.standardize = nn.BatchNorm2d(3, affine=False)
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, stride=stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
        )
        blocks: list[nn.Module] = []
        inputs = stem
        for width, stride, inside in zip(widths, strides, inner or widths, strict=True):
            blocks.append(BLOCKS[block](inputs, inside, width, stride=stride))
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * inputs, num_classes)
        self.grad_cam_layer = f"blocks.{len(blocks) - 1}.conv2"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, H)."""
        features = self._features(images)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.head(self.dropout(pooled))

    def forward_with_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and what each place adds to them, shape (N, C, h, w); without dropout.

        Both ways of pooling are sums over places: the mean of all, and the largest alone, whose
        share places divide that are equally large. So the maps and the bias add up to the logits.
        """
        features = self._features(images)
        mean, largest = features.mean(dim=(2, 3)), features.amax(dim=(2, 3))
        logits = self.head(torch.cat([mean, largest], dim=1))
        of_mean, of_largest = self.head.weight.chunk(2, dim=1)
        where = (features == largest[:, :, None, None]).to(features.dtype)
        shares = where * features / where.sum(dim=(2, 3), keepdim=True)
        places = features.shape[2] * features.shape[3]
        maps = torch.einsum("ck,nkhw->nchw", of_mean, features) / places
        return logits, maps + torch.einsum("ck,nkhw->nchw", of_largest, shares)

    def _features(self, images: Tensor) -> Tensor:
        return self.blocks(self.stem(self.standardize(images)))

    def links(self) -> list[Link]:
        """What pruning may make narrower: the inside of every block."""
        return [
            Link(f"blocks.{i}.{producer}", f"blocks.{i}.{norm}", f"blocks.{i}.{consumer}")
            for i, block in enumerate(self.blocks)
            for producer, norm, consumer in type(block).chain  # pyright: ignore[reportAttributeAccessIssue]
        ]

    @staticmethod
    def pruned_options(options: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
        """The options of the network whose links are `kept` wide; those of a block are equal."""
        links_of_a_block = len(kept) // len(options["widths"])
        return {**options, "inner": list(kept[::links_of_a_block])}


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut; halves the resolution where `stride` is 2."""

    chain = (("conv1", "norm1", "conv2"),)

    def __init__(self, inputs: int, inner: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm2.weight)  # every block starts as its shortcut
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, outputs, ceil(H / stride), ceil(W / stride)) of (N, inputs, H, W)."""
        inner = torch.relu(self.norm1(self.conv1(features)))
        return torch.relu(self.shortcut(features) + self.norm2(self.conv2(inner)))


class Bottleneck(nn.Module):
    """Into fewer channels, a convolution there, and out again, beside a shortcut.

    With the same number of weights it passes on more features than a basic block.
    """

    chain = (("conv0", "norm0", "conv1"), ("conv1", "norm1", "conv2"))

    def __init__(self, inputs: int, inner: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.norm0 = nn.BatchNorm2d(inner)
        self.conv1 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm2.weight)  # every block starts as its shortcut
        self.shortcut = _shortcut(inputs, outputs, stride)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, outputs, ceil(H / stride), ceil(W / stride)) of (N, inputs, H, W)."""
        inner = torch.relu(self.norm0(self.conv0(features)))
        inner = torch.relu(self.norm1(self.conv1(inner)))
        return torch.relu(self.shortcut(features) + self.norm2(self.conv2(inner)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(
        nn.AvgPool2d(stride, ceil_mode=True),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
    )


BLOCKS: dict[str, type[BasicBlock | Bottleneck]] = {"basic": BasicBlock, "bottleneck": Bottleneck}
