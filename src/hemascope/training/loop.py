"""The training loop: zero_grad, forward, backward, step."""

import math
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from hemascope.core.classes import ClassSet
from hemascope.core.errors import DivergedError, UsageError
from hemascope.core.images import LabeledImages
from hemascope.inference import predict
from hemascope.inference.torch_engine import TorchEngine, autocast
from hemascope.metrics import METRICS
from hemascope.models import build_model, head_of
from hemascope.settings.compute import Precision
from hemascope.settings.run import RunSettings
from hemascope.training.augmentation import Augmentation
from hemascope.training.losses import distillation, make_loss
from hemascope.training.optimizers import rate_factor
from hemascope.training.state import EpochRecord, TrainingState


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
    train: LabeledImages,
    val: LabeledImages,
    *,
    classes: ClassSet,
    precision: Precision,
    teacher: nn.Module | None = None,
    watched: LabeledImages | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[EpochRecord]:
    """Trains in place and yields after every epoch, so that the caller can save what is finished.

    Args:
        state: The network and how it is trained; taken up where it stands.
        train: What it is fitted to; kept as uint8 and scaled to [0, 1] a batch at a time.
        val: What its progress is measured on, and where the settings say so, when it stops.
        classes: What the labels mean.
        precision: "fp32" is exact; "bf16" computes the forward pass in bfloat16 where it is safe.
        teacher: A trained network to learn from as well, shown the same variants of the images.
        watched: The test split, for the study's curve only: nothing here depends on it.
        on_step: Called after every batch.

    Raises:
        DivergedError: If the loss of a step or of val is not finite; that epoch is not yielded.
    """
    settings, device, model = state.settings, state.device, state.model
    images = torch.from_numpy(train.images).to(device)
    labels = torch.from_numpy(train.labels).to(device)
    counts = torch.bincount(labels, minlength=len(classes))
    augmentation = Augmentation(settings.augmentation, classes.names, state.variants)
    criterion = make_loss(settings, counts)
    num_batches = -(-len(labels) // settings.batch_size)
    groups = [group for optimizer in state.optimizers for group in optimizer.param_groups]
    engine = TorchEngine(state.result, device=device, precision=precision)
    if teacher is not None:
        teacher.to(device).eval()

    while not state.is_finished:
        epoch = len(state.history) + 1
        start = time.perf_counter()
        _train_mode(model, freeze=settings.freeze)
        losses: list[Tensor] = []
        num_correct = torch.zeros((), dtype=torch.int64, device=device)
        order = _order(labels, counts, state)
        for first in range(0, len(labels), settings.batch_size):
            chosen = order[first : first + settings.batch_size]
            batch_labels = labels[chosen]
            inputs = augmentation(images[chosen], batch_labels)
            inputs, targets = augmentation.mix(inputs, batch_labels, len(classes))
            factor = rate_factor(settings, state.num_steps, settings.epochs * num_batches)
            for group in groups:
                group["lr"] = settings.learning_rate * factor

            model.zero_grad()
            with autocast(device, precision):
                logits = _forward(model, inputs)
                loss = criterion(logits, targets)
                if teacher is not None:
                    loss = _blend(loss, logits, teacher, inputs, state)
            if not torch.isfinite(loss):
                raise _diverged(
                    f"the loss of step {len(losses) + 1}", loss.item(), epoch, teacher, inputs
                )
            loss.backward()
            if settings.max_grad_norm:
                nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            for optimizer in state.optimizers:
                optimizer.step()
            state.after_step()

            losses.append(loss.detach())
            num_correct += (logits.argmax(dim=1) == batch_labels).sum()
            on_step()
        train_loss = torch.stack(losses).mean().item()
        seconds = time.perf_counter() - start
        on_val = predict(engine, val, classes)
        val_loss = METRICS["loss"](on_val)
        if not math.isfinite(val_loss):  # the losses alone miss what the last step did
            raise _diverged("the val loss", val_loss, epoch)
        on_test = predict(engine, watched, classes) if watched else None
        record = EpochRecord(
            epoch=epoch,
            train_loss=train_loss,
            train_accuracy=num_correct.item() / len(labels),
            val_loss=val_loss,
            val_accuracy=METRICS["accuracy"](on_val),
            test_loss=METRICS["loss"](on_test) if on_test else None,
            test_accuracy=METRICS["accuracy"](on_test) if on_test else None,
            test_f1_weighted=METRICS["f1_weighted"](on_test) if on_test else None,
            train_seconds=seconds,
        )
        state.history.append(record)
        yield record


def _diverged(
    what: str,
    value: float,
    epoch: int,
    teacher: nn.Module | None = None,
    inputs: Tensor | None = None,
) -> DivergedError:
    """What went wrong, whether the teacher is to blame, and what is left."""
    cause = "Lower training.learning_rate."
    if teacher is not None and inputs is not None:
        with torch.no_grad():
            if not torch.isfinite(teacher(inputs)).all():
                cause = "The teacher answers with numbers that are not finite: choose another."
    kept = f"; what was kept after epoch {epoch - 1} is still there" if epoch > 1 else ""
    return DivergedError(f"training diverged: {what} of epoch {epoch} is {value}{kept}. {cause}")


def _order(labels: Tensor, counts: Tensor, state: TrainingState) -> Tensor:
    """The images of an epoch by index; with `balanced`, some twice and some not at all."""
    if state.settings.balanced:
        chance = (1 / counts.clamp(min=1).double())[labels].cpu()
        order = torch.multinomial(chance, len(labels), replacement=True, generator=state.order)
    elif state.settings.shuffle:
        order = torch.randperm(len(labels), generator=state.order)
    else:
        order = torch.arange(len(labels))
    return order.to(labels.device)


def _forward(model: nn.Module, inputs: Tensor) -> Tensor:
    try:
        return model(inputs)
    except ValueError as error:  # batch normalization of one image without any area
        raise UsageError(
            f"training.batch_size: this network cannot be trained on a batch of {len(inputs)} "
            f"({error}); choose one that leaves no single image over."
        ) from error


def _train_mode(model: nn.Module, *, freeze: bool) -> None:
    """Training mode; a frozen network keeps its statistics too, all but its last layer."""
    model.train(not freeze)
    if freeze:
        head_of(model).train()


def _blend(
    loss: Tensor, logits: Tensor, teacher: nn.Module, inputs: Tensor, state: TrainingState
) -> Tensor:
    """The loss with the teacher's share in it."""
    share = state.settings.teacher_weight
    with torch.no_grad():
        teacher_logits = teacher(inputs)
    temperature = state.settings.teacher_temperature
    return (1 - share) * loss + share * distillation(
        logits, teacher_logits, temperature=temperature
    )
