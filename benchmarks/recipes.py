"""What each part of the recipe for other laboratories is worth: leave-one-laboratory-out.

    python benchmarks/recipes.py prepare CELLS [--data ../shared/data] [--pixels 64]
    python benchmarks/recipes.py run CELLS RESULTS.jsonl [--recipes NAME ...] [--seeds 0 1 2]
    python benchmarks/recipes.py table RESULTS.jsonl
    python benchmarks/recipes.py reject CELLS [--seeds 0 1 2]
    python benchmarks/recipes.py photographs CELLS RESULTS.jsonl [--recipes NAME ...] [--seeds 0 1]

`prepare` frames the cells of PBC, Raabin, JHU, BCCD and Tecom as `train` does and writes them to
the folder CELLS. `run` trains the network of the preset `hemanet-64-labs` by each recipe (RECIPES
below: what differs from the preset) on all laboratories but one, in turn, and adds a line to
RESULTS for each: balanced accuracy on the one left out, in one view, in eight, and with its last
layer moved by up to 1,000 cells without labels as `predict` does; on the val of the others; on
Tecom, which is never trained on and by which nothing is chosen. `table` prints mean and standard
deviation over the seeds, and the mean difference from the first recipe, over seeds and
laboratories, with a 95 % interval (Student's t over the seeds' means).

`reject` trains on PBC, Raabin, BCCD and the cells of half of JHU's patients, once as they are and
once with their blasts and smudge cells as a ninth class, and prints how well those of the other
patients are told from their other cells (AUROC), and balanced accuracy on these. Such cells are in
experiments only: nothing that ships is trained on them.

`photographs` trains the network of `hemanet-64` by each recipe (PHOTOGRAPHS below, or several
joined by " + ") on four fifths of the train split of PBC's photographs, and judges it by the rest
and by val, 4,101 images: accuracy and negative log-likelihood, in one view and in eight. Test is
not read.

Steps of a run are captured as a graph on CUDA; several run at once (`--jobs`).
"""

import argparse
import copy
import json
import math
import queue
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

PRESET = "hemanet-64-labs"
LABORATORIES = ("pbc_200", "jhu", "raabin", "bccd")
ODD = "jhu, other cells"
_BATCH = 128
_FEW = 1000  # cells that move a last layer
_KEPT = 4000  # cells of training whose features it knows
_CLASSES = 8
_MONOCYTE = 5
_TAUGHT = 0.7  # weight of what teachers say
_REST = "the rest of train, and val"


@dataclass(frozen=True)
class Recipe:
    """What differs from the preset: settings, the network, and further changes of the images."""

    settings: dict[str, Any] = field(default_factory=dict)
    network: Callable[[nn.Module], None] = lambda _: None
    change: Callable[[Tensor], Tensor] = lambda images: images
    teachers: tuple[str, ...] = ()  # recipes of networks that are trained first, and teach it


class HalfInstance(nn.Module):
    """Half of the channels normalized by image, half by batch. Source: IBN-Net, ECCV 2018."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.by_image = nn.InstanceNorm2d(channels // 2, affine=True)
        self.by_batch = nn.BatchNorm2d(channels - channels // 2)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        one, other = features.split([self.by_image.num_features, self.by_batch.num_features], 1)
        return torch.cat([self.by_image(one), self.by_batch(other)], 1)


class MixStyle(nn.Module):
    """Mixes the channels' statistics of images. Source: Zhou et al., ICLR 2021."""

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        if not self.training:
            return features
        count = len(features)
        mean = features.mean((2, 3), keepdim=True).detach()
        sd = (features.var((2, 3), keepdim=True) + 1e-6).sqrt().detach()
        other = torch.randperm(count, device=features.device)
        share = torch.rand(count, 1, 1, 1, device=features.device)
        share = torch.where(torch.rand_like(share) < 0.5, torch.ones_like(share), share)
        plain = (features - mean) / sd
        return (
            plain * (share * sd + (1 - share) * sd[other])
            + share * mean
            + (1 - share) * mean[other]
        )


class Density(nn.Module):
    """Optical density instead of brightness, standardized over the batch, or each image's own."""

    def __init__(self, *, by_image: bool) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(3) if by_image else nn.BatchNorm2d(3, affine=False)

    def forward(self, images: Tensor) -> Tensor:
        """Standardized densities (N, 3, H, H)."""
        return self.norm(-images.clamp(min=1 / 255).log())


def _half_instance(blocks: int) -> Callable[[nn.Module], None]:
    def change(model: Any) -> None:
        for block in model.blocks[:blocks]:
            block.norm0 = HalfInstance(block.norm0.num_features)

    return change


def _group_norm(model: nn.Module) -> None:
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.BatchNorm2d) and part.affine:
            parent, _, last = name.rpartition(".")
            group = nn.GroupNorm(8, part.num_features)
            group.weight.data.copy_(part.weight.data)
            setattr(model.get_submodule(parent), last, group)


def _mix_style(model: Any) -> None:
    model.stem.append(MixStyle())
    for i in range(2):
        model.blocks[i] = nn.Sequential(model.blocks[i], MixStyle())


def _density(*, by_image: bool) -> Callable[[nn.Module], None]:
    def change(model: Any) -> None:
        model.standardize = Density(by_image=by_image)

    return change


class BothDensities(nn.Module):
    """Densities standardized over the batch, and each image's own beside them: 6 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([Density(by_image=False), Density(by_image=True)])

    def forward(self, images: Tensor) -> Tensor:
        """Standardized densities (N, 6, H, H)."""
        return torch.cat([part(images) for part in self.parts], 1)


def _both_densities(model: Any) -> None:
    model.standardize = BothDensities()
    old = model.stem[0]
    model.stem[0] = nn.Conv2d(6, old.out_channels, 3, stride=old.stride, padding=1, bias=False)
    nn.init.kaiming_normal_(model.stem[0].weight, nonlinearity="relu")


def _together(*changes: Callable[[nn.Module], None]) -> Callable[[nn.Module], None]:
    def change(model: nn.Module) -> None:
        for one in changes:
            one(model)

    return change


def _some(images: Tensor, share: float) -> Tensor:
    return torch.rand(len(images), 1, 1, 1, device=images.device) < share


class Squeezed(nn.Module):
    """A block's normalization, its channels weighted by what the whole image shows.

    Source: Hu et al., Squeeze-and-Excitation Networks, CVPR 2018.
    """

    def __init__(self, norm: nn.Module, channels: int, inner: int) -> None:
        super().__init__()
        self.norm = norm
        self.inner, self.outer = nn.Linear(channels, inner), nn.Linear(inner, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Features of the same shape."""
        features = self.norm(features)
        weights = torch.sigmoid(self.outer(torch.relu(self.inner(features.mean((2, 3))))))
        return features * (2 * weights)[:, :, None, None]


def _squeeze(inner: int) -> Callable[[nn.Module], None]:
    def change(model: Any) -> None:
        for block in model.blocks:
            block.norm2 = Squeezed(block.norm2, block.norm2.num_features, inner)

    return change


def _swap_stains(share: float) -> Callable[[Tensor], Tensor]:
    """Mean and spread of each channel's density of another image. Source: Reinhard et al., 2001."""

    def change(images: Tensor) -> Tensor:
        density = -images.clamp(1 / 255, 1).log()
        other = density[torch.randperm(len(images), device=images.device)]
        sd = density.std((2, 3), keepdim=True).clamp(min=0.02)
        plain = (density - density.mean((2, 3), keepdim=True)) / sd
        swapped = plain * other.std((2, 3), keepdim=True) + other.mean((2, 3), keepdim=True)
        return torch.where(_some(images, share), torch.exp(-swapped).clamp(0, 1), images)

    return change


def _gray(share: float) -> Callable[[Tensor], Tensor]:
    def change(images: Tensor) -> Tensor:
        return torch.where(_some(images, share), images.mean(1, keepdim=True), images)

    return change


def _gamma(share: float, size: float) -> Callable[[Tensor], Tensor]:
    """Another exposure and contrast: brightness to a power and times a factor, each e^±size."""

    def change(images: Tensor) -> Tensor:
        power, factor = (
            torch.exp((2 * torch.rand(len(images), 1, 1, 1, device=images.device) - 1) * size)
            for _ in range(2)
        )
        changed = (images.clamp(0, 1) ** power * factor).clamp(0, 1)
        return torch.where(_some(images, share), changed, images)

    return change


def _random_convolution(share: float) -> Callable[[Tensor], Tensor]:
    """A random 3 by 3 convolution, mixed with the image. Source: Xu et al., ICLR 2021."""

    def change(images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        weights = torch.randn(count * 3, 3, 3, 3, device=images.device) / math.sqrt(27)
        flat = images.reshape(1, count * channels, height, width)
        found = functional.conv2d(flat, weights, padding=1, groups=count).reshape(images.shape)
        mixed = torch.rand(count, 1, 1, 1, device=images.device)
        mean, sd = found.mean((2, 3), keepdim=True), found.std((2, 3), keepdim=True)
        like = (found - mean) / (sd + 1e-5) * images.std((2, 3), keepdim=True)
        like = like + images.mean((2, 3), keepdim=True)
        return torch.where(_some(images, share), mixed * images + (1 - mixed) * like, images)

    return change


def _coarse(share: float) -> Callable[[Tensor], Tensor]:
    """A lower resolution: half of the pixels along a side, and back."""

    def change(images: Tensor) -> Tensor:
        size = images.shape[-1]
        small = functional.interpolate(images, scale_factor=0.5, mode="area")
        back = functional.interpolate(small, size=size, mode="bilinear")
        return torch.where(_some(images, share), back, images)

    return change


def _local_tint(share: float) -> Callable[[Tensor], Tensor]:
    """Uneven light: a smooth field of density over the image, of each channel its own."""

    def change(images: Tensor) -> Tensor:
        field = torch.randn(len(images), 3, 3, 3, device=images.device) * 0.2
        field = functional.interpolate(field, size=images.shape[-1], mode="bicubic")
        return torch.where(_some(images, share), (images * torch.exp(field)).clamp(0, 1), images)

    return change


def _chain(*changes: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def change(images: Tensor) -> Tensor:
        for one in changes:
            images = one(images)
        return images

    return change


_AUG, _NET = "training.augmentation.", "model.options."
RECIPES: dict[str, Recipe] = {
    "preset": Recipe(),
    "no white point": Recipe({_NET + "white_point": False}),
    "no stain mixing": Recipe({_AUG + "stain": 0.0}),
    "stain mixing on 0.9": Recipe({_AUG + "stain": 0.9}),
    "no turn and zoom": Recipe({_AUG + "affine": 0.0}),
    "zoom e^0.6": Recipe({_AUG + "zoom": 0.6}),
    "no blur, noise": Recipe({_AUG + "blur": 0.0, _AUG + "noise": 0.0}),
    "no isolation": Recipe({_AUG + "isolate": 0.0}),
    "not by laboratory": Recipe({"training.by_laboratory": False}),
    "group normalization": Recipe(network=_group_norm),
    "instance norm, 2 blocks": Recipe(network=_half_instance(2)),
    "instance norm, 4 blocks": Recipe(network=_half_instance(4)),
    "MixStyle": Recipe(network=_mix_style),
    "density": Recipe(network=_density(by_image=False)),
    "density by image": Recipe(network=_density(by_image=True)),
    "stains swapped": Recipe(change=_swap_stains(0.5)),
    "gray": Recipe(change=_gray(0.2)),
    "exposure": Recipe(change=_gamma(0.5, 0.4)),
    "random convolution": Recipe(change=_random_convolution(0.3)),
    "coarse": Recipe(change=_coarse(0.3)),
    "uneven light": Recipe(change=_local_tint(0.5)),
    "CutMix": Recipe({_AUG + "cutmix": 1.0}),
    "MixUp": Recipe({_AUG + "mixup": 0.2}),
    "dropout 0.3": Recipe({_NET + "dropout": 0.3}),
    "weight decay 0.2": Recipe({"training.weight_decay": 0.2}),
    "rate 0.01": Recipe({"training.learning_rate": 0.01}),
    "AdamW": Recipe({"training.optimizer": "adamw"}),
    "twice as wide": Recipe(
        {
            _NET + "widths": [320, 320, 512, 512, 512, 512],
            _NET + "inner": [80, 80, 128, 128, 128, 128],
            _NET + "stem": 64,
        }
    ),
    "stains swapped on 0.25": Recipe(change=_swap_stains(0.25)),
    "density, swapped": Recipe(network=_density(by_image=False), change=_swap_stains(0.5)),
    "density, gray": Recipe(network=_density(by_image=False), change=_gray(0.2)),
    "both densities": Recipe(network=_both_densities),
    "density by image, instance norm": Recipe(
        network=_together(_density(by_image=True), _half_instance(2))
    ),
    "density by image, swapped": Recipe(network=_density(by_image=True), change=_swap_stains(0.3)),
    "density by image, gray": Recipe(network=_density(by_image=True), change=_gray(0.2)),
    "density by image, no white point": Recipe(
        {_NET + "white_point": False}, network=_density(by_image=True)
    ),
    "density by image, stain 0.9": Recipe({_AUG + "stain": 0.9}, network=_density(by_image=True)),
    "swapped, gray": Recipe(change=_chain(_swap_stains(0.5), _gray(0.2))),
    "instance norm, swapped": Recipe(network=_half_instance(2), change=_swap_stains(0.5)),
    "instance norm, gray": Recipe(network=_half_instance(2), change=_gray(0.2)),
    "instance norm, swapped, gray": Recipe(
        network=_half_instance(2), change=_chain(_swap_stains(0.5), _gray(0.2))
    ),
    "all changes": Recipe(
        change=_chain(
            _swap_stains(0.3), _gamma(0.3, 0.4), _gray(0.1), _coarse(0.2), _local_tint(0.3)
        )
    ),
}


def _blocks(widths: list[int], inner: list[int], strides: list[int]) -> dict[str, Any]:
    return {_NET + "widths": widths, _NET + "inner": inner, _NET + "strides": strides}


_SHARED = ("CutMix", "MixUp", "rate 0.01", "weight decay 0.2", "dropout 0.3", "twice as wide")
PHOTOGRAPHS: dict[str, Recipe] = {
    "preset": Recipe(),
    "halved later": Recipe(_blocks([160] * 3 + [256] * 3, [44] * 3 + [68] * 3, [2, 1, 1, 2, 1, 1])),
    "halved later, seven": Recipe(
        _blocks([160] * 4 + [256] * 3, [40] * 4 + [64] * 3, [2, 1, 1, 1, 2, 1, 1])
    ),
    "halved later, eight": Recipe(
        _blocks([160] * 6 + [256] * 2, [44] * 6 + [64] * 2, [2, 1, 1, 1, 1, 1, 2, 1])
    ),
    "first block whole": Recipe(
        _blocks([96] + [160] * 2 + [256] * 3, [32] + [40] * 2 + [64] * 3, [1, 2, 1, 2, 1, 1])
    ),
    "whole stem": Recipe({_NET + "stem_stride": 1}),
    "deeper": Recipe(_blocks([128] * 2 + [192] * 6, [36] * 2 + [56] * 6, [2, 1, 2, 1, 1, 1, 1, 1])),
    "as wide as may be": Recipe({_NET + "inner": [48, 48, 68, 68, 68, 68]}),
    "squeezed": Recipe(network=_squeeze(14)),
    "turn, zoom e^0.1": Recipe({_AUG + "affine": 0.5, _AUG + "zoom": 0.1}),
    "turn, zoom e^0.3": Recipe({_AUG + "affine": 0.5, _AUG + "zoom": 0.3}),
    "turn always": Recipe({_AUG + "affine": 1.0, _AUG + "zoom": 0.1}),
    "cutout": Recipe({_AUG + "cutout": 8}),
    "stain 0.3": Recipe({_AUG + "stain": 0.3}),
    "color 0.1": Recipe({_AUG + "color": 0.1}),
    "blur, noise": Recipe({_AUG + "blur": 0.2, _AUG + "noise": 0.2}),
    "shift 4": Recipe({_AUG + "shift": 4}),
    "white point": Recipe({_NET + "white_point": True}),
    "80 epochs": Recipe({"training.epochs": 80}),
    "120 epochs": Recipe({"training.epochs": 120}),
    "average 0.998": Recipe({"training.average": 0.998}),
    "rate 0.003": Recipe({"training.learning_rate": 0.003}),
    "weight decay 0.1": Recipe({"training.weight_decay": 0.1}),
    "smoothing 0.05": Recipe({"training.label_smoothing": 0.05}),
    "smoothing 0.2": Recipe({"training.label_smoothing": 0.2}),
    **{name: RECIPES[name] for name in _SHARED},
    "taught by three": Recipe(teachers=("preset", "preset", "preset")),
    "taught by three, twice as wide": Recipe(teachers=("twice as wide",) * 3),
}


def _joined(recipes: dict[str, Recipe], name: str) -> Recipe:
    """One recipe of several, whose names are joined by " + "."""
    parts = [recipes[one] for one in name.split(" + ")]
    return Recipe(
        {key: value for one in parts for key, value in one.settings.items()},
        _together(*(one.network for one in parts)),
        _chain(*(one.change for one in parts)),
        tuple(teacher for one in parts for teacher in one.teachers),
    )


# --- Data ---------------------------------------------------------------------------------------


def prepare(cells: Path, data: Path, pixels: int) -> None:
    """Writes images.npy and the rest, with the val split of what each laboratory's fold keeps."""
    from hemascope.core.classes import Split
    from hemascope.core.images import concatenate
    from hemascope.data.splits import split_by_shares
    from hemascope.settings.run import load_preset
    from hemascope.workflows.progress import Reporter
    from hemascope.workflows.sources import load_data

    def read(*sources: Path, **changes: str) -> Any:
        """Of cells that belong to a laboratory read before, the frame is given."""
        asked = {"sources": tuple(map(str, sources)), "image_size": pixels, **changes}
        settings = load_preset(PRESET).data.model_copy(update=asked)
        return load_data(settings, Reporter(), as_found=True)

    trained = read(data / "pbc_200", data / "labs" / "labs.csv")
    images = concatenate(list(trained.splits.values()))
    other, odd = read(data / "tecom_wbc"), read(data / "labs_other" / "jhu", frame="whole")
    unseen, odd = (concatenate(list(one.splits.values())) for one in (other, odd))
    numbers = np.array([trained.classes.index(name) for name in other.classes.names])
    laboratory = np.array(images.laboratories)
    splits_of = [np.full(len(part), split.value) for split, part in trained.splits.items()]
    val = {}
    for name in LABORATORIES:
        others = np.flatnonzero(laboratory != name)
        numbered = images.take(others)
        splits = split_by_shares(numbered, trained.classes, {Split.VAL: 0.1})
        place = dict(zip(numbered.ids, others, strict=True))
        val[f"val_{name}"] = np.array([place[one] for one in splits[Split.VAL].ids])
    cells.mkdir(parents=True, exist_ok=True)
    np.save(cells / "images.npy", np.concatenate([images.images, unseen.images, odd.images]))
    patients = [Path(one).name.partition("__")[0] for one in odd.ids]
    np.savez(
        cells / "rest.npz",
        labels=np.concatenate([images.labels, numbers[unseen.labels], np.full(len(odd), _CLASSES)]),
        laboratories=np.concatenate(
            [laboratory, np.full(len(unseen), "tecom"), np.full(len(odd), ODD)]
        ),
        groups=np.array([*(images.groups or ()), *[""] * len(unseen), *patients]),
        splits=np.concatenate([*splits_of, np.full(len(unseen) + len(odd), "")]),
        **val,
    )


# --- Training -----------------------------------------------------------------------------------


class Step:
    """One step of training: on CUDA a graph that is replayed."""

    def __init__(
        self, model: nn.Module, settings: Any, shape: tuple[int, int], device: torch.device
    ) -> None:
        from hemascope.training.optimizers import Muon, make_optimizers

        self.model, self.settings, self.device = model, settings, device
        is_compiled = shutil.which("g++") and device.type == "cpu"  # a sixth faster
        self.forward: Callable[[Tensor], Tensor] = torch.compile(model) if is_compiled else model
        pixels, num_classes = shape
        self.inputs = torch.zeros(_BATCH, 3, pixels, pixels, device=device).contiguous(
            memory_format=torch.channels_last
        )
        self.targets = torch.zeros(_BATCH, num_classes, device=device)
        self.rate = torch.zeros((), device=device)
        optimizers = make_optimizers(model, settings)
        self.matrices = [
            one for o in optimizers if isinstance(o, Muon) for one in o.param_groups[0]["params"]
        ]
        self.momenta = [torch.zeros_like(one) for one in self.matrices]
        self.adam = optimizers[-1]
        for group in self.adam.param_groups:
            group["lr"] = self.rate if device.type == "cuda" else 0.0
            group["capturable"] = device.type == "cuda"
        self.graph: Any = None

    def __call__(self, inputs: Tensor, targets: Tensor, rate: float) -> None:
        """Moves the weights."""
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        if self.device.type != "cuda":
            for group in self.adam.param_groups:
                group["lr"] = rate
            self.rate.fill_(rate)
            self.compute()
        elif self.graph:
            self.rate.fill_(rate)
            self.graph.replay()
        else:
            self.capture()
            self.rate.fill_(rate)
            self.graph.replay()

    def capture(self) -> None:
        """Keeps the graph; steps at a rate of 0 come first."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.compute()
        torch.cuda.current_stream().wait_stream(side)
        self.model.zero_grad()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.compute()

    def compute(self) -> None:
        """Forward, backward, optimizers."""
        self.model.zero_grad()
        with _autocast(self.device):
            logits = self.forward(self.inputs)
        loss = functional.cross_entropy(
            logits.float(), self.targets, label_smoothing=self.settings.label_smoothing
        )
        loss.backward()
        self.move_matrices()
        self.adam.step()

    @torch.no_grad()
    def move_matrices(self) -> None:
        """As `hemascope.training.optimizers.Muon`, all matrices of a shape at once."""
        if not self.matrices:
            return
        gradients = [one.grad for one in self.matrices]
        for momentum, gradient in zip(self.momenta, gradients, strict=True):
            momentum.mul_(0.95).add_(gradient)
        ahead = [g.add(m, alpha=0.95) for g, m in zip(gradients, self.momenta, strict=True)]
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, matrix in enumerate(ahead):
            shapes.setdefault((len(matrix), matrix[0].numel()), []).append(i)
        for (height, width), which in shapes.items():
            wide = torch.stack([ahead[i].flatten(1) for i in which])
            wide = wide.mT if height > width else wide
            wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
            for _ in range(4):
                gram = wide @ wide.mT
                wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
            wide = wide.mT if height > width else wide
            wide = wide * (self.rate * 0.2 * math.sqrt(max(height, width)))
            for i, change in zip(which, wide, strict=True):
                weight = self.matrices[i]
                weight.mul_(1 - self.rate * self.settings.weight_decay)
                weight.sub_(change.view(weight.shape))


def _autocast(device: torch.device) -> torch.autocast:
    """As the package's, which a graph can hold."""
    from hemascope.inference.torch_engine import pick_precision

    native = pick_precision("auto", device) == "bf16"
    return torch.autocast(device.type, torch.bfloat16, enabled=native, cache_enabled=False)


class Fold:
    """The cells on the device, and what is trained and judged on them."""

    def __init__(self, cells: Path, device: torch.device) -> None:
        self.device = device
        rest = np.load(cells / "rest.npz")
        self.labels: NDArray[np.int64] = rest["labels"]
        self.laboratories: NDArray[np.str_] = rest["laboratories"]
        self.val = {name: rest[f"val_{name}"] for name in LABORATORIES}
        images = np.load(cells / "images.npy")
        self.images = torch.from_numpy(images).to(device)
        self.groups: NDArray[np.str_] = rest["groups"]
        self.splits: NDArray[np.str_] = rest["splits"]

    def run_photographs(self, name: str, *, seed: int) -> dict[str, Any]:
        """Trains on four fifths of PBC's train; accuracy in per cent on the rest and val."""
        own = self.laboratories == LABORATORIES[0]
        train = np.flatnonzero(own & (self.splits == "train"))
        chance, rest = np.random.default_rng(0), [np.flatnonzero(own & (self.splits == "val"))]
        for one in range(_CLASSES):
            of_class = chance.permutation(train[self.labels[train] == one])
            rest.append(of_class[: len(of_class) // 5])
        judged = np.concatenate(rest)
        rows = np.setdiff1d(train, judged)
        recipe = _joined(PHOTOGRAPHS, name)
        teachers = [
            self.train(PHOTOGRAPHS[one], rows, seed=seed + 100 * number, base="hemanet-64")[0]
            for number, one in enumerate(recipe.teachers, 1)
        ]
        model, _ = self.train(recipe, rows, seed=seed, base="hemanet-64", teachers=teachers)
        found: dict[str, Any] = {"parameters": sum(one.numel() for one in model.parameters())}
        labels = self.labels[judged]
        for key, views in (("plain", 1), ("views", 8)):
            probs, _ = self.answer(model, judged, views=views)
            said = probs.argmax(1)
            found[key] = round(100 * float((said == labels).mean()), 3)
            found[f"NLL {key}"] = round(float(-np.log(probs[range(len(labels)), labels]).mean()), 5)
            found[f"monocytes {key}"] = round(
                100 * float((said[labels == _MONOCYTE] == _MONOCYTE).mean()), 2
            )
        return found

    def run(
        self, recipe: Recipe, held: str, *, seed: int, epochs: int, eight: bool
    ) -> dict[str, Any]:
        """Trains without a laboratory; balanced accuracy in per cent."""
        known = np.isin(self.laboratories, [one for one in LABORATORIES if one != held])
        known[self.val[held]] = False
        rows = np.flatnonzero(known)
        model, losses = self.train(recipe, rows, seed=seed, epochs=epochs)
        found: dict[str, Any] = {"loss": round(losses, 4)}
        for name in (held, "tecom"):
            found |= {
                f"{name} {key}".replace(held, "held", 1): value
                for key, value in self.judge(
                    model, rows, self.laboratories == name, eight=eight
                ).items()
            }
        probs, _ = self.answer(model, self.val[held], views=1)
        found["val"] = balanced(self.labels[self.val[held]], probs)
        return found

    def train(
        self,
        recipe: Recipe,
        rows: NDArray[np.intp],
        *,
        seed: int,
        epochs: int | None = None,
        base: str = PRESET,
        teachers: Sequence[nn.Module] = (),
    ) -> tuple[nn.Module, float]:
        """The averaged network, as `hemascope.training.loop.fit` makes it."""
        from hemascope.models import build_model
        from hemascope.settings.run import RunSettings
        from hemascope.training.augmentation import Augmentation
        from hemascope.training.loop import initialize
        from hemascope.training.optimizers import rate_factor

        settings = RunSettings.model_validate(_with(_preset(base), recipe.settings))
        device, num_classes = self.device, int(self.labels[rows].max()) + 1
        pixels = self.images.shape[1]
        torch.manual_seed(seed)
        model = build_model(
            settings.model, image_size=pixels, num_classes=num_classes, weights_follow=False
        )
        initialize(model)
        recipe.network(model)
        model = model.to(device).to(memory_format=torch.channels_last).train()
        step = Step(model, settings.training, (pixels, num_classes), device)
        values = [v for v in model.state_dict().values() if v.is_floating_point()]
        averages = [v.detach().clone() for v in values]
        labels = torch.from_numpy(self.labels[rows]).to(device)
        places = torch.from_numpy(rows).to(device)
        cells = np.unique(
            np.char.add(self.laboratories[rows], self.labels[rows].astype(str)), return_inverse=True
        )[1]
        chances = np.bincount(cells)[cells] ** -0.5
        if not settings.training.by_laboratory:
            chances = np.ones(len(rows))
        weights = torch.from_numpy(chances).to(device)
        num_steps = (epochs or settings.training.epochs) * -(-len(rows) // _BATCH)
        with torch.device(device):  # random numbers are drawn there, unlike in the package
            generator = torch.Generator(device).manual_seed(seed + 2**32)
            augmentation = Augmentation(
                settings.training.augmentation, tuple(map(str, range(num_classes))), generator
            )
            for number in range(num_steps):
                drawn = torch.multinomial(weights, _BATCH, replacement=True, generator=generator)
                of_batch = labels[drawn]
                inputs = augmentation(self.images[places[drawn]], of_batch)
                inputs, targets, _ = augmentation.mix(recipe.change(inputs), of_batch, num_classes)
                if targets.ndim == 1:
                    targets = functional.one_hot(targets, num_classes)
                if teachers:
                    targets = (1 - _TAUGHT) * targets + _TAUGHT * self.taught(teachers, inputs)
                factor = rate_factor(settings.training, number, num_steps)
                step(inputs, targets.float(), settings.training.learning_rate * factor)
                share = 1 - min(settings.training.average, (1 + number) / (10 + number))
                with torch.no_grad():
                    for average, value in zip(averages, values, strict=True):
                        average.lerp_(value, share)
            with torch.no_grad(), _autocast(device):
                loss = functional.cross_entropy(model(step.inputs).float(), step.targets).item()
        with torch.no_grad():
            for average, value in zip(averages, values, strict=True):
                value.copy_(average)
        result = copy.deepcopy(model).eval()
        return result, loss

    @torch.no_grad()
    def taught(self, teachers: Sequence[nn.Module], inputs: Tensor) -> Tensor:
        """The teachers' mean probabilities."""
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with _autocast(self.device):
            return torch.stack([one(inputs).float().softmax(1) for one in teachers]).mean(0)

    def judge(
        self, model: nn.Module, trained: NDArray[np.intp], where: NDArray[np.bool_], *, eight: bool
    ) -> dict[str, float]:
        """Balanced accuracy in one view, in eight, and with a moved layer."""
        from hemascope.inference.last_layer import Kept, moved_head
        from hemascope.store.model_folder import Head

        rows = np.flatnonzero(where)
        labels = self.labels[rows]
        one, features = self.answer(model, rows, views=1)
        averaged = self.answer(model, rows, views=8)[0] if eight else None
        chance = np.random.default_rng(0)
        kept = chance.permutation(trained)[:_KEPT]
        few = chance.permutation(len(rows))[:_FEW]
        _, of_kept = self.answer(model, kept, views=1)
        head: Any = model.head
        layer = Head(
            head.weight.detach().float().cpu().numpy(), head.bias.detach().float().cpu().numpy()
        )
        moved = moved_head(layer, Kept(of_kept, self.labels[kept]), features[few], 1.0)
        return {
            "plain": balanced(labels, one),
            "views": math.nan if averaged is None else balanced(labels, averaged),
            "moved": balanced(labels, moved.logits(features)),
        }

    @torch.no_grad()
    def answer(
        self, model: nn.Module, rows: NDArray[np.intp], *, views: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Probabilities and features."""
        seen: list[Tensor] = []
        handle = model.get_submodule("head").register_forward_pre_hook(
            lambda _, given: seen.append(given[0].float())
        )
        probs: list[Tensor] = []
        places = torch.from_numpy(rows).to(self.device)
        for chosen in places.split(512):
            images = self.images[chosen].permute(0, 3, 1, 2).float() / 255
            total = torch.zeros((), device=self.device)
            for view in range(views):
                turned = torch.rot90(images, view % 4, (2, 3))
                turned = turned.flip(3) if view >= 4 else turned
                with _autocast(self.device):
                    logits = model(turned.contiguous(memory_format=torch.channels_last))
                total = total + logits.float().softmax(1)
            probs.append(total / views)
        handle.remove()
        return torch.cat(probs).cpu().numpy(), torch.cat(seen).cpu().numpy()


def balanced(labels: NDArray[np.int64], scores: NDArray[np.floating]) -> float:
    """Mean sensitivity, in per cent, over the classes with more than one cell."""
    said = scores.argmax(1)
    classes = [c for c in np.unique(labels) if (labels == c).sum() > 1]
    return round(100 * float(np.mean([(said[labels == c] == c).mean() for c in classes])), 2)


def _preset(name: str) -> dict[str, Any]:
    import tomllib

    path = resources.files("hemascope.settings") / "presets" / f"{name}.toml"
    return tomllib.loads(path.read_text("utf-8"))


def _with(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    content = copy.deepcopy(content)
    for name, value in changes.items():
        *folders, last = name.split(".")
        place = content
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = value
    return content


def work(cells: Path, device: str, jobs: Any, done: Any, until: float, *, eight: bool) -> None:
    """Takes jobs until there are no more, or it is too late to begin one."""
    torch.set_num_threads(1)
    fold = Fold(cells, torch.device(device))
    while time.time() < until:
        job = jobs.get()
        if job is None:
            break
        name, held, seed, epochs = job
        start = time.time()
        found: dict[str, Any] = {"recipe": name, "held": held, "seed": seed, "epochs": epochs}
        try:
            if held == _REST:
                found |= fold.run_photographs(name, seed=seed)
            else:
                recipe = _joined(RECIPES, name)
                found |= fold.run(recipe, held, seed=seed, epochs=epochs, eight=eight)
        except Exception:  # the others are trained all the same
            found["error"] = traceback.format_exc()
        done.put({**found, "seconds": round(time.time() - start, 1)})
    done.put(None)


def run(asked: argparse.Namespace) -> None:
    """Trains, several at once, and writes each result as soon as it is there."""
    context = torch.multiprocessing.get_context("spawn")
    jobs, done = context.Queue(), context.Queue()
    known = set()
    if asked.results.exists():
        for line in asked.results.read_text("utf-8").splitlines():
            one = json.loads(line)
            if "error" in one:
                continue
            known.add((one["recipe"], one["held"], one["seed"], one["epochs"]))
    for seed in asked.seeds:
        for name in asked.recipes:
            for held in asked.held:
                job = (name, held, seed, asked.epochs)
                if job not in known:
                    jobs.put(job)
    for _ in range(asked.jobs):
        jobs.put(None)
    until = time.time() + asked.seconds
    workers = [
        context.Process(
            target=work,
            args=(asked.cells, asked.device, jobs, done, until),
            kwargs={"eight": not asked.one_view},
        )
        for _ in range(asked.jobs)
    ]
    for one in workers:
        one.start()
    left = len(workers)
    while left:
        try:
            found = done.get(timeout=60)
        except queue.Empty:
            if any(one.is_alive() for one in workers):
                continue
            sys.exit("the processes have ended before their work was done")
        if found is None:
            left -= 1
            continue
        with asked.results.open("a") as file:
            file.write(json.dumps(found) + "\n")
        print(json.dumps(found), flush=True)
    jobs.cancel_join_thread()


def reject(asked: argparse.Namespace) -> None:
    """Prints what a class of cells that are none of the others is worth."""
    from hemascope.metrics.classification import auroc

    torch.set_num_threads(1)
    fold = Fold(asked.cells, torch.device(asked.device))
    odd, jhu = fold.laboratories == ODD, fold.laboratories == "jhu"
    patients = np.unique(fold.groups[odd | jhu])
    for seed in asked.seeds:
        half = np.random.default_rng(seed).permutation(patients)[: len(patients) // 2]
        taught = np.isin(fold.groups, half)
        known = np.isin(fold.laboratories, ["pbc_200", "raabin", "bccd"]) | (jhu & taught)
        judged = np.flatnonzero((odd | jhu) & ~taught)
        is_odd = fold.labels[judged] == _CLASSES
        for name, rows in (("as they are", known), ("with a ninth class", known | (odd & taught))):
            model, _ = fold.train(
                RECIPES["preset"], np.flatnonzero(rows), seed=seed, epochs=asked.epochs
            )
            probs, _ = fold.answer(model, judged, views=8)
            named = probs[:, :_CLASSES]
            doubt = probs[:, _CLASSES] if probs.shape[1] > _CLASSES else 1 - named.max(1)
            right = balanced(fold.labels[judged][~is_odd], named[~is_odd])
            found = {
                "AUROC": round(auroc(doubt.astype(float), is_odd), 3),
                "balanced accuracy": right,
            }
            counts = {"judged": int((~is_odd).sum()), "other cells": int(is_odd.sum())}
            print(json.dumps({"recipe": name, "seed": seed, **found, **counts}), flush=True)


# --- Table --------------------------------------------------------------------------------------


def table(path: Path, figure: str) -> None:
    """Prints mean ± standard deviation over seeds for each recipe and laboratory."""
    from scipy import stats

    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    lines = [line for line in lines if "error" not in line]
    if any(line["held"] == _REST for line in lines):
        table_of_photographs(lines)
        return
    found: dict[tuple[str, int], dict[str, dict[int, float]]] = {}
    for line in lines:
        of_recipe = found.setdefault((line["recipe"], line["epochs"]), {})
        of_recipe.setdefault(line["held"], {})[line["seed"]] = line[f"held {figure}"]
        of_recipe.setdefault("tecom", {}).setdefault(line["seed"], 0.0)
        of_recipe["tecom"][line["seed"]] += line[f"tecom {figure}"] / len(LABORATORIES)
    first = next(iter(found.values()))
    print(f"{'recipe':30}{'epochs':>7}{'n':>3}" + "".join(f"{n:>14}" for n in LABORATORIES), end="")
    print(f"{'mean':>8}{'Tecom':>14}{'difference':>24}")
    for (name, epochs), figures in found.items():
        whole = set.intersection(*(set(figures.get(lab, {})) for lab in LABORATORIES))
        if not whole:
            continue
        cells = [_spread([figures[lab][s] for s in sorted(whole)]) for lab in LABORATORIES]
        mean = np.mean([figures[lab][s] for lab in LABORATORIES for s in whole])
        both = [s for s in whole if all(s in first.get(lab, {}) for lab in LABORATORIES)]
        gains = [np.mean([figures[lab][s] - first[lab][s] for lab in LABORATORIES]) for s in both]
        gain = f"{np.mean(gains):+.1f}" if gains else ""
        if len(gains) > 1 and figures is not first:
            half = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains)
            gain += f" [{np.mean(gains) - half:+.1f}, {np.mean(gains) + half:+.1f}]"
        unseen = _spread([figures["tecom"][s] for s in sorted(whole)])
        print(f"{name:30}{epochs:7}{len(whole):3}" + "".join(f"{c:>14}" for c in cells), end="")
        print(f"{mean:8.1f}{unseen:>14}{gain:>24}")


def table_of_photographs(lines: Sequence[dict[str, Any]]) -> None:
    """Prints what each recipe has on the photographs judged, the best first."""
    keys = ("plain", "views", "monocytes plain")
    of_recipes: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        of_recipes.setdefault(line["recipe"], []).append(line)
    columns = "".join(f"{key:>16}" for key in keys) + f"{'NLL plain':>11}{'NLL views':>11}"
    print(f"{'recipe':40}{'parameters':>11}{'n':>3}{columns}")
    for name, of_recipe in sorted(
        of_recipes.items(), key=lambda item: -np.mean([line["plain"] for line in item[1]])
    ):
        shown = "".join(f"{_spread([line[key] for line in of_recipe], 2):>16}" for key in keys)
        for key in ("NLL plain", "NLL views"):
            shown += f"{np.mean([line[key] for line in of_recipe]):11.4f}"
        print(f"{name:40}{of_recipe[0]['parameters']:11,}{len(of_recipe):3}{shown}")


def _spread(values: Sequence[float], digits: int = 1) -> str:
    sd = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{sd}"


def main() -> None:
    """Does what is asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("prepare")
    one.add_argument("cells", type=Path)
    one.add_argument("--data", type=Path, default=Path("../shared/data"))
    one.add_argument("--pixels", type=int, default=64, help="fewer for a quicker comparison")
    for part, recipes, seeds in (
        ("run", RECIPES, [0, 1, 2]),
        ("photographs", PHOTOGRAPHS, [0, 1]),
    ):
        one = parts.add_parser(part)
        one.add_argument("cells", type=Path)
        one.add_argument("results", type=Path)
        one.add_argument("--recipes", nargs="*", metavar="NAME", default=list(recipes))
        one.add_argument("--seeds", nargs="*", type=int, default=seeds)
        one.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        one.add_argument("--jobs", type=int, default=1)
        one.add_argument("--seconds", type=float, default=math.inf, help="to begin a training in")
        one.set_defaults(held=[_REST], epochs=0, one_view=False, known=recipes)
        if part == "run":
            one.add_argument("--held", nargs="*", choices=LABORATORIES, default=LABORATORIES)
            one.add_argument("--epochs", type=int, default=10)
            one.add_argument(
                "--one-view", action="store_true", help="judge in one view alone, to save time"
            )
    one = parts.add_parser("table")
    one.add_argument("results", type=Path)
    one.add_argument("--figure", choices=["plain", "views", "moved"], default="views")
    one = parts.add_parser("reject")
    one.add_argument("cells", type=Path)
    one.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    one.add_argument("--epochs", type=int, default=10)
    one.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    if asked.part == "prepare":
        prepare(asked.cells, asked.data, asked.pixels)
    elif asked.part in ("run", "photographs"):
        for name in asked.recipes:
            if unknown := set(name.split(" + ")) - set(asked.known):
                parser.error(
                    f"no recipe {', '.join(sorted(unknown))}; there are: {list(asked.known)}"
                )
        run(asked)
    elif asked.part == "reject":
        reject(asked)
    else:
        table(asked.results, asked.figure)


if __name__ == "__main__":
    main()
