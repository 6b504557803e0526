"""A network being trained and everything that changes with it: what a checkpoint holds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from hemascope.core.errors import DataError
from hemascope.settings.compute import Precision
from hemascope.settings.run import TrainingSettings
from hemascope.training.optimizers import Muon, make_optimizers

# What each optimizer keeps of every weight, by name.
_STATES: dict[type[Optimizer], tuple[str, ...]] = {
    Muon: ("momentum",),
    torch.optim.Adam: ("step", "exp_avg", "exp_avg_sq"),  # and AdamW, which is one
    torch.optim.SGD: ("momentum_buffer",),
}
Tensors = tuple[Tensor, ...] | list[Tensor]
_AVERAGE_WARM_UP = 9  # the larger, the faster the average forgets its first steps


@dataclass(frozen=True)
class EpochRecord:
    """One epoch of the training history.

    Attributes:
        epoch: Counted from 1.
        train_loss: What was minimized, averaged over each batch, then over the epoch's batches, as
            the study has it: a smaller last batch counts as much as the others.
        seconds: Time of the training steps, without evaluation.
        figures: What the task measured, by name: `train_...` while the weights were changing, on
            augmented and mixed examples; `val_...` after the epoch, `val_loss` always; and those of
            any other split that was watched. All are finite.
    """

    epoch: int
    train_loss: float
    seconds: float
    figures: dict[str, float]

    @property
    def val_loss(self) -> float:
        """What early stopping and divergence are judged by."""
        return self.figures["val_loss"]


class TrainingState:
    """Weights, their average, optimizer, random numbers and history.

    Args:
        model: The network, initialized; moved to `device` and trained in place.
        settings: How it will be trained.
        seed: Decides the order of the images and their variants.
        device: Where to compute.
        precision: "fp32" is exact; "bf16" computes the forward pass in bfloat16 where it is safe.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: TrainingSettings,
        *,
        seed: int,
        device: torch.device,
        precision: Precision = "fp32",
    ) -> None:
        model.to(device)
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stubs
        self.model = model
        self.settings = settings
        self.device = device
        self.precision: Precision = precision
        self.order = torch.Generator().manual_seed(seed)
        self.variants = torch.Generator().manual_seed(seed + 2**32)  # apart from the order's
        self.optimizers = make_optimizers(model, settings)
        self.history: list[EpochRecord] = []
        self.num_steps = 0
        self._averaged = (
            AveragedModel(model, multi_avg_fn=_moving_average(settings.average), use_buffers=True)
            if settings.average
            else None
        )

    @property
    def result(self) -> nn.Module:
        """The network to evaluate and to keep: the averaged one where there is one."""
        return self._averaged.module if self._averaged else self.model

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest val loss so far; 0 before the first."""
        return min(self.history, key=lambda record: record.val_loss).epoch if self.history else 0

    @property
    def is_best(self) -> bool:
        """Whether the last epoch's network is the one to keep."""
        return not self.settings.patience or self.best_epoch == len(self.history)

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or the val loss has not fallen for long enough."""
        patience = self.settings.patience
        stalled = bool(patience) and len(self.history) - self.best_epoch >= patience
        return stalled or len(self.history) >= self.settings.epochs

    def after_step(self) -> None:
        """Counts a step of the optimizer and moves the average."""
        self.num_steps += 1
        if self._averaged:
            self._averaged.update_parameters(self.model)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that the next step depends on, by name, on the CPU."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self._averaged:
            tensors |= {f"average.{k}": v for k, v in self._averaged.state_dict().items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, values in optimizer.state_dict()["state"].items():
                place = f"optimizer{number}.{index}"
                tensors |= {f"{place}.{name}": value for name, value in values.items()}
        tensors |= {f"random.{name}": state for name, state in self._random_states().items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def restore(self, tensors: Mapping[str, Tensor], history: list[EpochRecord]) -> None:
        """Takes up where `tensors` and `history` were taken.

        Raises:
            DataError: If they are of another network or of other settings.
        """
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            if self._averaged:
                self._averaged.load_state_dict(parts["average"])
            for number, optimizer in enumerate(self.optimizers):
                _restore_optimizer(optimizer, parts.get(f"optimizer{number}", {}))
            self._restore_random(parts["random"])
            self.num_steps = int(parts["random"]["num_steps"].item())
            if not history or self.num_steps <= 0 or self.num_steps % len(history):
                raise ValueError("as many steps in every epoch")
        except (KeyError, RuntimeError, ValueError, IndexError, TypeError) as error:
            raise DataError(
                "the checkpoint does not fit these settings; train the run again with `overwrite`."
            ) from error
        self.history = history

    def _random_states(self) -> dict[str, Tensor]:
        states = {
            "order": self.order.get_state(),
            "variants": self.variants.get_state(),
            "dropout": torch.get_rng_state(),
            "num_steps": torch.tensor(self.num_steps),
        }
        if self.device.type == "cuda":
            states["dropout_cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def _restore_random(self, states: Mapping[str, Tensor]) -> None:
        self.order.set_state(states["order"])
        self.variants.set_state(states["variants"])
        torch.set_rng_state(states["dropout"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(states["dropout_cuda"], self.device)


def _restore_optimizer(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        if tensor.shape == like.shape:  # keep the memory format, on which rounding depends
            tensor = torch.empty_like(like).copy_(tensor)
        state.setdefault(int(index), {})[key] = tensor
    names = next(names for kind, names in _STATES.items() if isinstance(optimizer, kind))
    for index, parameter in enumerate(parameters):
        shapes = {name: tensor.shape for name, tensor in state[index].items()}
        if shapes != {name: () if name == "step" else parameter.shape for name in names}:
            raise ValueError("the state of an optimizer")
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def _moving_average(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """Exponential, with a plain mean's quicker start: the first steps are soon forgotten."""

    def update(averages: Tensors, values: Tensors, num_averaged: Tensor | int) -> None:
        count = int(num_averaged)
        share = 1 - min(decay, (1 + count) / (1 + _AVERAGE_WARM_UP + count))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)  # a count of batches

    return torch.no_grad()(update)
