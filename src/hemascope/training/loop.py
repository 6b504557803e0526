"""The study's training loop: zero_grad, forward, backward, step."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hemascope.config import Precision, TrainingSettings
from hemascope.core import ClassSet
from hemascope.data.dataset import LabeledImages
from hemascope.errors import DivergedError
from hemascope.inference import predict
from hemascope.inference.torch_engine import TorchPredictor, autocast, to_input
from hemascope.metrics import METRICS


@dataclass(frozen=True)
class EpochRecord:
    """One row of the training history; losses in nats, accuracies as fractions.

    `train_loss` is averaged per batch, then over the epoch's batches (the last, smaller one counts
    as one), and `train_accuracy` is counted while the weights still change: both as the study has
    them. `train_seconds` is the time of the steps alone, without evaluation. The test columns are
    drawn as the study draws them, and never used; None where the settings leave them out.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    test_loss: float | None
    test_accuracy: float | None
    test_f1_weighted: float | None
    train_seconds: float


def initialize(model: nn.Module) -> None:
    """He initialization: Kaiming-normal weights (fan-in, for ReLU) and zero biases.

    Source: He et al., Delving Deep into Rectifiers, ICCV 2015.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def fit(
    model: nn.Module,
    train: LabeledImages,
    val: LabeledImages,
    settings: TrainingSettings,
    *,
    classes: ClassSet,
    seed: int,
    device: torch.device,
    precision: Precision,
    watched: LabeledImages | None = None,
    on_step: Callable[[], None] = lambda: None,
) -> Iterator[EpochRecord]:
    """Trains in place and yields after every epoch, so that the caller can save what is finished.

    Args:
        model: The network, initialized.
        train: What it is fitted to; kept as uint8 and scaled to [0, 1] a batch at a time.
        val: What its progress is measured on.
        settings: Epochs, learning rate, batches.
        classes: What the labels mean.
        seed: Decides the order of the images where they are shuffled.
        device: Where to compute.
        precision: "fp32" is exact; "bf16" computes the forward pass in bfloat16 where it is safe.
        watched: The test split, for the study's curve only: nothing here depends on it.
        on_step: Called after every batch.

    Raises:
        DivergedError: If a loss of an epoch is not finite; that epoch is not yielded.
    """
    images = torch.from_numpy(train.images).to(device)
    labels = torch.from_numpy(train.labels).to(device)
    model.to(device)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stubs
    optimizer = torch.optim.Adam(
        model.parameters(), lr=settings.learning_rate, betas=settings.betas, fused=True
    )
    order_of = torch.Generator().manual_seed(seed)
    predictor = TorchPredictor(model, device=device, precision=precision)

    for epoch in range(1, settings.epochs + 1):
        start = time.perf_counter()
        model.train()
        losses: list[Tensor] = []
        num_correct = torch.zeros((), dtype=torch.int64, device=device)
        order = torch.randperm(len(labels), generator=order_of) if settings.shuffle else None
        for first in range(0, len(labels), settings.batch_size):
            batch = slice(first, first + settings.batch_size)
            chosen = batch if order is None else order[batch].to(device)
            inputs, targets = to_input(images[chosen]), labels[chosen]

            optimizer.zero_grad()
            with autocast(device, precision):
                logits = model(inputs)
                loss = cross_entropy(logits, targets)
            loss.backward()
            optimizer.step()

            losses.append(loss.detach())
            num_correct += (logits.argmax(dim=1) == targets).sum()
            on_step()
        train_loss = torch.stack(losses).mean().item()
        seconds = time.perf_counter() - start
        on_val = predict(predictor, val, classes)
        val_loss = METRICS["loss"](on_val)
        if not math.isfinite(train_loss + val_loss):  # train_loss alone misses the last step
            raise DivergedError(
                f"training diverged: the loss of epoch {epoch} is {train_loss} on train and "
                f"{val_loss} on val; the weights of epoch {epoch - 1} are kept. Lower "
                "training.learning_rate."
            )
        on_test = predict(predictor, watched, classes) if watched else None
        yield EpochRecord(
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
