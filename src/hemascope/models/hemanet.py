"""Our own network: residual, inside the study's budget."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from hemascope.models.links import Link

_GRID = 16  # places along a side, at which the background is looked for
_DARKEST = 0.05  # of a background
_PAINTED, _LIGHT = 0.999, 0.75  # brightness of a place that is paint; of one that may be glass


class HemaNet(nn.Module):
    """A small residual network; its preset has fewer parameters than the study's CNN.

    The images are standardized by what training saw, pass one convolution, and then residual
    blocks: "basic" ones of two convolutions, or "bottleneck" ones, which compute in fewer channels
    than they pass on. `stem_stride` and `strides` say which of them halve the resolution. The head
    sees mean and maximum of every feature over the image. `inner` are the widths inside the blocks,
    which pruning makes smaller; by default those of the outputs. With `white_point` each image is
    first divided by the color of its background, which differs between laboratories. Maps images
    (N, 3, H, H) in [0, 1] to logits (N, C).

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
        white_point: bool = False,
    ) -> None:
        super().__init__()
        del image_size  # any: the head pools
        self.white_point = white_point
        self.standardize = nn.BatchNorm2d(3, affine=False)
        self.stem = nn.Sequential(
            nn.Conv2d(3, stem, 3, stride=stem_stride, padding=1, bias=False),
            nn.BatchNorm2d(stem),
            nn.ReLU(),
        )
        blocks: list[Block] = []
        inputs = stem
        for width, stride, inside in zip(widths, strides, inner or widths, strict=True):
            bottleneck = block == "bottleneck"
            blocks.append(Block(inputs, inside, width, stride=stride, bottleneck=bottleneck))
            inputs = width
        self.blocks = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * inputs, num_classes)
        self.grad_cam_layer = f"blocks.{len(blocks) - 1}.conv2"

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C) of images (N, 3, H, H)."""
        return self.after(self.before(images, 0), 0)

    def before(self, images: Tensor, blocks: int) -> Tensor:
        """What the last `blocks` blocks are given of images (N, 3, H, H)."""
        if self.white_point:
            images = on_white(images)
        features = self.stem(self.standardize(images))
        return self.blocks[: len(self.blocks) - blocks](features)

    def after(self, features: Tensor, blocks: int) -> Tensor:
        """Logits (N, C) of what `before` gives."""
        features = self.blocks[len(self.blocks) - blocks :](features)
        pooled = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)
        return self.head(self.dropout(pooled))

    def forward_with_maps(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and what each place adds to them, shape (N, C, h, w); without dropout.

        Both ways of pooling are sums over places: the mean of all, and the largest alone, whose
        share places divide that are equally large. So the maps and the bias add up to the logits.
        """
        features = self.before(images, 0)
        mean, largest = features.mean(dim=(2, 3)), features.amax(dim=(2, 3))
        logits = self.head(torch.cat([mean, largest], dim=1))
        of_mean, of_largest = self.head.weight.chunk(2, dim=1)
        where = (features == largest[:, :, None, None]).to(features.dtype)
        shares = where * features / where.sum(dim=(2, 3), keepdim=True)
        places = features.shape[2] * features.shape[3]
        maps = torch.einsum("ck,nkhw->nchw", of_mean, features) / places
        return logits, maps + torch.einsum("ck,nkhw->nchw", of_largest, shares)

    def links(self) -> list[Link]:
        """What pruning may make narrower: the inside of every block."""
        return [
            Link(f"blocks.{i}.{producer}", f"blocks.{i}.{norm}", f"blocks.{i}.{consumer}")
            for i, block in enumerate(self.blocks)
            for producer, norm, consumer in cast("Block", block).chain
        ]

    @staticmethod
    def pruned_options(options: Mapping[str, Any], kept: Sequence[int]) -> dict[str, Any]:
        """The options of the network whose links are `kept` wide; those of a block are equal."""
        links_of_a_block = len(kept) // len(options["widths"])
        return {**options, "inner": list(kept[::links_of_a_block])}


def on_white(images: Tensor) -> Tensor:
    """Images (N, 3, H, H) in [0, 1] divided by the color of their background, in [0, 1.2].

    The background is the mean color of the brightest tenth of the places of a grid of 16 by 16 (of
    fewer where an image is small): brightness chooses places, not channels, so that a bluish cell
    on yellow does not count as background. Places of pure white do not count if enough others are
    light: around a cell that was cut out they are paint, not glass.
    """
    places = avg_pool2d(images, max(images.shape[-1] // _GRID, 1)).flatten(2)
    brightness = places.mean(dim=1)
    count = max(brightness.shape[1] // 10, 1)
    unpainted = torch.where(brightness < _PAINTED, brightness, -brightness)
    is_light = unpainted.topk(count, dim=1).values[:, -1:] > _LIGHT
    brightness = torch.where(is_light, unpainted, brightness)
    least = brightness.topk(count, dim=1).values[:, -1:]
    chosen = (brightness >= least).to(images.dtype).unsqueeze(1)
    white = (places * chosen).sum(dim=2) / chosen.sum(dim=2)
    return (images / white.clamp(min=_DARKEST)[:, :, None, None]).clamp(0.0, 1.2)


class Block(nn.Module):
    """Convolutions beside a shortcut; halves the resolution where `stride` is 2.

    A basic block has two. A bottleneck has one into fewer channels, one there, and one out again:
    with the same number of weights it passes on more features.
    """

    def __init__(
        self, inputs: int, inner: int, outputs: int, *, stride: int, bottleneck: bool
    ) -> None:
        super().__init__()
        last = 1 if bottleneck else 3  # pixels
        self.chain = [("conv1", "norm1", "conv2")]
        if bottleneck:
            self.conv0 = nn.Conv2d(inputs, inner, 1, bias=False)
            self.norm0 = nn.BatchNorm2d(inner)
            self.chain.insert(0, ("conv0", "norm0", "conv1"))
        narrow = inner if bottleneck else inputs
        self.conv1 = nn.Conv2d(narrow, inner, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, outputs, last, padding=last // 2, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        nn.init.zeros_(self.norm2.weight)  # every block starts as its shortcut
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride, ceil_mode=True),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, outputs, ceil(H / stride), ceil(W / stride)) of (N, inputs, H, W)."""
        inner = features
        for convolution, norm, _ in self.chain:
            inner = self.get_submodule(convolution)(inner)
            inner = torch.relu(self.get_submodule(norm)(inner))
        return torch.relu(self.shortcut(features) + self.norm2(self.conv2(inner)))
