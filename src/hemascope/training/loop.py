"""The training loop: zero_grad, forward, backward, step."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from hemascope.core.errors import DivergedError
from hemascope.inference.torch_engine import autocast
from hemascope.models import build_model, head_of
from hemascope.settings.run import RunSettings
from hemascope.training import parallel
from hemascope.training.optimizers import rate_factor
from hemascope.training.state import EpochRecord, TrainingState
from hemascope.training.task import Batch, Examples, Task


def initialize(model: nn.Module) -> None:
    """He initialization: Kaiming-normal weights (fan-in, for ReLU) and zero biases.

    Source: He et al., Delving Deep into Rectifiers, ICCV 2015.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def fresh_model(
    settings: RunSettings, *, image_size: int, num_classes: int, weights_follow: bool = False
) -> nn.Module:
    """A network before its first step, initialized as `training.init` says; seed torch before.

    Args:
        settings: Which architecture, and its initialization.
        image_size: Height and width of the images in pixels.
        num_classes: How many classes it tells apart.
        weights_follow: Whether weights will be loaded into it.

    Raises:
        UsageError: If there is no such architecture.
        UnreachableError: If pretrained weights cannot be fetched.
    """
    model = build_model(
        settings.model,
        image_size=image_size,
        num_classes=num_classes,
        weights_follow=weights_follow,
    )
    # A library's architectures have initializations of their own.
    if not weights_follow and settings.training.init == "he" and "/" not in settings.model.name:
        initialize(model)
    return model


def fit(
    state: TrainingState,
    task: Task[Batch, Examples],
    val: Examples,
    *,
    watched: Mapping[str, Examples] | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[EpochRecord]:
    """Trains in place and yields after every epoch, so the caller can save what is finished.

    In a group of processes, each calls it, and takes its part in every batch.

    Args:
        state: The network and how it is trained; resumed where it stands.
        task: What the network is to learn, with its training examples.
        val: What progress is measured on and, where the settings say so, what stops training.
        watched: Further examples to evaluate each epoch, by the name of their split, such as the
            study's test curve: nothing here depends on them.
        on_step: Called after every batch.

    Raises:
        DivergedError: If the loss of a step or of val is not finite; that epoch is not yielded.
    """
    settings, model = state.settings, state.model
    num_steps = settings.epochs * -(-len(task) // settings.batch_size)
    groups = [group for optimizer in state.optimizers for group in optimizer.param_groups]
    shared = parallel.shared(model)

    while not state.is_finished:
        epoch = len(state.history) + 1
        start = time.perf_counter()
        _train_mode(model, freeze=settings.freeze)
        parallel.seed_dropout(state.order.initial_seed(), epoch)
        losses: list[float] = []
        sums: dict[str, Tensor] = {}
        for chosen in _order(task, state).split(settings.batch_size):
            rows, weight = parallel.part_of(len(chosen))
            batch = task.batch(chosen, rows)
            factor = rate_factor(settings, state.num_steps, num_steps)
            for group in groups:
                group["lr"] = settings.learning_rate * factor

            model.zero_grad()
            with autocast(state.device, state.precision):
                loss, counted = task.loss(shared, batch)
            loss = loss * weight
            whole = parallel.summed(loss.detach().clone()) / parallel.size()
            if not torch.isfinite(whole):
                raise _diverged(f"the loss of step {len(losses) + 1}", whole.item(), epoch)
            loss.backward()
            if settings.max_grad_norm:
                nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            for optimizer in state.optimizers:
                optimizer.step()
            parallel.average_buffers(model)
            state.after_step()

            losses.append(whole.item())  # a tensor kept of each step would leave holes in memory
            counts = bool(weight)
            sums = {name: counts * value + sums.get(name, 0) for name, value in counted.items()}
            on_step()
        train_loss = torch.tensor(losses).mean().item()
        sums = {name: parallel.summed(total) for name, total in sums.items()}
        figures = {f"train_{name}": total.item() / len(task) for name, total in sums.items()}
        seconds = time.perf_counter() - start

        for split, examples in {"val": val, **(watched or {})}.items():
            found = parallel.from_first(partial(task.evaluate, state.result, examples))
            figures |= {f"{split}_{name}": value for name, value in found.items()}
        record = EpochRecord(epoch, train_loss, seconds, figures)
        if not math.isfinite(record.val_loss):  # the losses alone miss what the last step did
            raise _diverged("the val loss", record.val_loss, epoch)
        state.history.append(record)
        yield record


def _diverged(what: str, value: float, epoch: int) -> DivergedError:
    kept = f"; what was kept after epoch {epoch - 1} is still there" if epoch > 1 else ""
    return DivergedError(
        f"training diverged: {what} of epoch {epoch} is {value}{kept}. Lower "
        "training.learning_rate."
    )


def _order(task: Task[Batch, Examples], state: TrainingState) -> Tensor:
    """The examples of an epoch by index; with chances, some twice and some not at all."""
    if task.chances is not None:
        order = torch.multinomial(task.chances, len(task), replacement=True, generator=state.order)
    elif state.settings.shuffle:
        order = torch.randperm(len(task), generator=state.order)
    else:
        order = torch.arange(len(task))
    return order.to(state.device)


def _train_mode(model: nn.Module, *, freeze: bool) -> None:
    """Training mode; a frozen network keeps its statistics too, all but its last layer."""
    model.train(not freeze)
    if freeze:
        head_of(model).train()
