"""Random changes to a batch of training images, computed on the whole batch at once.

Lengths are given for images of 28 pixels and scaled with the size of others, so that a change
covers the same share of a cell at any size.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, one_hot

from hemascope.inference.torch_engine import to_input
from hemascope.settings.run import AugmentationSettings

_GRAY = 0.5
_STAIN_SD, _TINT_SD = 0.35, 0.25  # of the stains' densities, and of the background's
_SIZE = 28  # pixels, of the images that lengths are given for
_MIN_SIGMA, _MAX_SIGMA, _RADIUS = 0.3, 1.5, 3  # of the blur, in pixels
_MIN_RADIUS, _MAX_RADIUS, _ASIDE, _BLACK = 0.35, 0.6, 0.02, 0.2  # of the disk, as shares; of paint
_MAX_NOISE = 0.12  # standard deviation of a pixel in [0, 1]


class Augmentation:
    """Draws a new variant of every image; the same generator state gives the same variants."""

    def __init__(
        self,
        settings: AugmentationSettings,
        class_names: tuple[str, ...],
        generator: torch.Generator,
    ) -> None:
        self._settings = settings
        self._generator = generator
        only = settings.only_classes or class_names
        self._augmented = torch.tensor([name in only for name in class_names])

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Turns uint8 pixels (N, H, H, 3) into varied network inputs, float (N, 3, H, H).

        Notes:
            Random numbers are drawn on the CPU, so that every device sees the same variants.
        """
        settings = self._settings
        size, count = images.shape[1], len(images)
        changed = self._augmented[labels.cpu()]
        if settings.turns or settings.shift:
            source = self._source_pixels(count, size, changed).to(images.device)
            pixels = images.reshape(count, size * size, 3)
            source = source.reshape(count, size * size, 1).expand(-1, -1, 3)
            images = pixels.gather(1, source).reshape(images.shape)
        inputs = to_input(images)
        if settings.affine:
            chosen = (self._uniform(count) < settings.affine) & changed
            self._turn_and_zoom(inputs, chosen.nonzero().squeeze(1).to(inputs.device))
        if settings.color:
            gain = self._normal(count, 3, 1, 1) * settings.color * changed.view(-1, 1, 1, 1)
            offset = self._normal(count, 3, 1, 1) * settings.color * changed.view(-1, 1, 1, 1)
            inputs = inputs * (1 + gain.to(inputs.device)) + offset.to(inputs.device)
        for share, change in (
            (settings.stain, self._stain),
            (settings.blur, self._blur),
            (settings.noise, self._noise),
            (settings.isolate, self._isolate),
        ):
            if share:
                chosen = ((self._uniform(count) < share) & changed).nonzero().squeeze(1)
                if len(chosen):
                    chosen = chosen.to(inputs.device)
                    inputs[chosen] = change(inputs[chosen])
        if settings.cutout:
            hidden = self._squares(count, size) & changed.view(-1, 1, 1)
            inputs = inputs.masked_fill(hidden.unsqueeze(1).to(inputs.device), _GRAY)
        return inputs

    def mix(
        self, inputs: Tensor, targets: Tensor, num_classes: int, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Mixes the batch with a shuffled copy of itself, as MixUp and CutMix do.

        Args:
            inputs: Network inputs, shape (N, 3, H, H).
            targets: Their classes, shape (N,).
            num_classes: C.
            weights: How much each image counts in the loss, shape (N,), where they differ.

        Returns:
            The inputs; the targets, classes (N,) as given, or probabilities (N, C) if mixed; and
            the weights. The share of an image in a mixed target is in proportion to its weight.
        """
        settings = self._settings
        if not settings.mixup and not settings.cutmix:
            return inputs, targets, weights
        cut = settings.cutmix and (not settings.mixup or self._uniform(1).item() < 0.5)
        alpha = settings.cutmix if cut else settings.mixup
        share = self._beta(alpha)
        other = torch.randperm(len(inputs), generator=self._generator).to(inputs.device)
        if cut:
            size = inputs.shape[-1]
            side = int(size * math.sqrt(1 - share))
            top, left = (int(self._uniform(1).item() * (size - side + 1)) for _ in range(2))
            window = (..., slice(top, top + side), slice(left, left + side))
            mixed = inputs.clone()
            mixed[window] = inputs[other][window]
            share = 1 - (side / size) ** 2
        else:
            mixed = share * inputs + (1 - share) * inputs[other]
        classes = one_hot(targets, num_classes).to(inputs.dtype)
        if weights is None:
            return mixed, share * classes + (1 - share) * classes[other], None
        classes = weights.unsqueeze(1) * classes
        amounts = share * classes + (1 - share) * classes[other]
        weights = amounts.sum(dim=1)
        return mixed, amounts / weights.clamp(min=1e-12).unsqueeze(1), weights

    def _source_pixels(self, count: int, size: int, changed: Tensor) -> Tensor:
        """For every pixel of the new images, the index of the old one: shape (N, H, H)."""
        place = torch.arange(size)
        shift = _scaled(self._settings.shift, size)
        lines: list[Tensor] = []
        for _ in range(2):
            moved = place + torch.randint(-shift, shift + 1, (count, 1), generator=self._generator)
            lines.append((size - 1 - (moved.abs() - (size - 1)).abs()).clamp(0, size - 1))
        rows, columns = lines
        flips = self._uniform(3, count, 1) < (0.5 if self._settings.turns else 0)
        rows = torch.where(flips[0], size - 1 - rows, rows)
        columns = torch.where(flips[1], size - 1 - columns, columns)
        source = rows.unsqueeze(2) * size + columns.unsqueeze(1)
        source = torch.where(flips[2].unsqueeze(2), source.transpose(1, 2), source)
        unchanged = place.unsqueeze(1) * size + place
        return torch.where(changed.view(-1, 1, 1), source, unchanged)

    def _turn_and_zoom(self, inputs: Tensor, chosen: Tensor) -> None:
        count = len(chosen)
        angle = self._uniform(count) * 2 * math.pi
        scale = torch.exp((2 * self._uniform(count) - 1) * self._settings.zoom)
        cosine, sine, zero = angle.cos() * scale, angle.sin() * scale, torch.zeros(count)
        rows = (torch.stack([cosine, -sine, zero], 1), torch.stack([sine, cosine, zero], 1))
        matrices = torch.stack(rows, 1).to(inputs.device)
        if count:
            grid = affine_grid(matrices, [count, *inputs.shape[1:]], align_corners=False)
            inputs[chosen] = grid_sample(
                inputs[chosen], grid, mode="bicubic", padding_mode="reflection", align_corners=False
            )

    def _stain(self, inputs: Tensor) -> Tensor:
        """Other stains and another background: densities are mixed, strengthened and shifted.

        Source: after the stain augmentation of Tellez et al., Medical Image Analysis 2019, here on
        the densities of R, G and B.
        """
        count = len(inputs)
        density = -inputs.clamp(min=1 / 255).log()
        strength = torch.exp(self._normal(count, 3, 1) * _STAIN_SD)
        mixing = torch.eye(3) * strength + self._normal(count, 3, 3) * (_STAIN_SD / 3)
        tint = self._normal(count, 3, 1, 1) * _TINT_SD
        mixed = torch.einsum("nij,njhw->nihw", mixing.to(inputs.device), density)
        return torch.exp(-(mixed + tint.to(inputs.device))).clamp(0, 1)

    def _blur(self, inputs: Tensor) -> Tensor:
        count, channels, height, width = inputs.shape
        sigma = _MIN_SIGMA + self._uniform(count, 1) * (_MAX_SIGMA - _MIN_SIGMA)
        sigma = sigma.to(inputs.device) * (width / _SIZE)
        radius = _scaled(_RADIUS, width)
        place = torch.arange(-radius, radius + 1, device=inputs.device)
        kernel = torch.exp(-((place / sigma) ** 2) / 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
        flat = inputs.reshape(1, count * channels, height, width)
        for shape, pad in (
            ((-1, 1, 1, 2 * radius + 1), (1, 1, 0, 0)),
            ((-1, 1, 2 * radius + 1, 1), (0, 0, 1, 1)),
        ):
            padded = torch.nn.functional.pad(
                flat, [radius * side for side in pad], mode="replicate"
            )
            flat = torch.nn.functional.conv2d(padded, kernel.view(shape), groups=count * channels)
        return flat.reshape(inputs.shape)

    def _noise(self, inputs: Tensor) -> Tensor:
        strength = self._uniform(len(inputs), 1, 1, 1) * _MAX_NOISE
        return (inputs + (self._normal(*inputs.shape) * strength).to(inputs.device)).clamp(0, 1)

    def _isolate(self, inputs: Tensor) -> Tensor:
        """Paints what lies outside a disk white, or seldom black, as around a cell cut out."""
        count, size = len(inputs), inputs.shape[-1]
        place = (torch.arange(size) + 0.5) / size - 0.5
        x, y = self._normal(2, count, 1, 1) * _ASIDE
        away = ((place - x) ** 2 + (place.unsqueeze(1) - y) ** 2).sqrt()
        radius = _MIN_RADIUS + self._uniform(count, 1, 1) * (_MAX_RADIUS - _MIN_RADIUS)
        paint = (self._uniform(count, 1, 1, 1) > _BLACK).to(inputs)
        return torch.where((away > radius).unsqueeze(1).to(inputs.device), paint, inputs)

    def _squares(self, count: int, size: int) -> Tensor:
        """One square per image, cut off at the edge: shape (N, H, H), true inside."""
        place = torch.arange(size)
        side = _scaled(self._settings.cutout, size)
        inside: list[Tensor] = []
        for _ in range(2):
            start = (self._uniform(count, 1) * size).int() - side // 2
            inside.append((place >= start) & (place < start + side))
        return inside[0].unsqueeze(2) & inside[1].unsqueeze(1)

    def _beta(self, alpha: float) -> float:
        """A draw from Beta(alpha, alpha), seeded by the generator."""
        import numpy as np

        seed = int(torch.randint(2**31, (1,), generator=self._generator).item())
        return float(np.random.default_rng(seed).beta(alpha, alpha))

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self._generator)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator)


def _scaled(pixels: int, size: int) -> int:
    """A length given for images of 28 pixels, in whole pixels of images of another size."""
    return round(pixels * size / _SIZE)
