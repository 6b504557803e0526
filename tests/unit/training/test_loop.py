"""The loop against the textbook's, written out here a second time."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import small_arrays
from hemascope.core.errors import DivergedError, UsageError
from hemascope.core.images import LabeledImages
from hemascope.data.collections import BLOOD_CELLS
from hemascope.models import build_model
from hemascope.settings.run import ModelSettings, TrainingSettings, load_preset
from hemascope.training.loop import fit, fresh_model, initialize
from hemascope.training.state import EpochRecord, TrainingState
from hemascope.training.task import ClassificationTask

CPU = torch.device("cpu")
SETTINGS = TrainingSettings(epochs=3, learning_rate=0.001, batch_size=24, shuffle=False)


def _images(split: str) -> LabeledImages:
    arrays = small_arrays()
    labels = arrays[f"{split}_labels"].ravel().astype(np.int64)
    ids = tuple(f"{split}/{i}" for i in range(len(labels)))
    return LabeledImages(arrays[f"{split}_images"], labels, ids)


TRAIN, VAL, TEST = _images("train"), _images("val"), _images("test")


def _cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build_model(ModelSettings(name="cnn"), image_size=28, num_classes=8)


def _fit(
    model: nn.Module, settings: TrainingSettings = SETTINGS, *, seed: int = 0, watch: bool = False
) -> list[EpochRecord]:
    state = TrainingState(model, settings, seed=seed, device=CPU)
    watched = {"test": TEST} if watch else None
    return list(fit(state, _task(state), VAL, watched=watched))


def _task(state: TrainingState) -> ClassificationTask:
    return ClassificationTask(TRAIN, state, classes=BLOOD_CELLS)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_agrees_with_a_plain_loop() -> None:
    model = _cnn()
    records = _fit(model)

    plain = _cnn()
    images = torch.from_numpy(TRAIN.images).permute(0, 3, 1, 2).float() / 255
    labels = torch.from_numpy(TRAIN.labels)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.001, betas=(0.9, 0.999))
    for record in records:
        losses: list[float] = []
        correct = 0
        for i in (0, 24, 48):  # 64 images: the last batch has 16
            optimizer.zero_grad()
            logits = plain(images[i : i + 24])
            loss = nn.functional.cross_entropy(logits, labels[i : i + 24])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            correct += int((logits.argmax(1) == labels[i : i + 24]).sum())
        assert record.train_loss == pytest.approx(np.mean(losses), abs=1e-4)
        assert record.figures["train_accuracy"] == pytest.approx(correct / 64, abs=2 / 64)
    start = _cnn().state_dict()
    for name, expected in _weights(plain).items():  # rounding alone parts them by far less
        apart = (model.state_dict()[name] - expected).norm()
        assert apart < 0.02 * (expected - start[name]).norm(), name


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    settings = SETTINGS.model_copy(update={"shuffle": True})
    first, again, other = _cnn(), _cnn(), _cnn()
    records = _fit(first, settings, seed=1)
    repeated = _fit(again, settings, seed=1)
    _fit(other, settings, seed=2)
    for name, tensor in _weights(first).items():
        assert torch.equal(tensor, again.state_dict()[name])
    assert not torch.equal(
        first.state_dict()["classifier.1.weight"], other.state_dict()["classifier.1.weight"]
    )
    assert [replace(r, seconds=0) for r in records] == [replace(r, seconds=0) for r in repeated]


def test_watching_the_test_split_changes_nothing() -> None:
    watched, unwatched = _cnn(), _cnn()
    records = _fit(watched, watch=True)
    of_test = {"test_loss", "test_accuracy", "test_f1_weighted"}
    assert all(not of_test & r.figures.keys() for r in _fit(unwatched))
    assert all(of_test <= r.figures.keys() for r in records)
    for name, tensor in _weights(watched).items():
        assert torch.equal(tensor, unwatched.state_dict()[name])


def test_every_image_is_seen_once_an_epoch_the_last_batch_too() -> None:
    seen: list[Tensor] = []

    class Spy(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            if self.training:
                seen.append(input.detach().clone())
            return super().forward(input)

    model = nn.Sequential(nn.Flatten(), Spy(2352, 8))
    _fit(model, SETTINGS.model_copy(update={"shuffle": True, "epochs": 2}))
    assert [len(batch) for batch in seen] == [24, 24, 16] * 2
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    pixels = torch.from_numpy(TRAIN.images).permute(0, 3, 1, 2).flatten(1)
    for epoch in (first, second):
        seen_pixels = (255 * epoch).round().to(torch.uint8)
        assert sorted(seen_pixels.tolist()) == sorted(pixels.tolist())
    assert not torch.equal(first, second)


def test_divergence_stops_before_the_epoch_is_counted() -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(DivergedError, match=r"step \d of epoch 1 is (nan|inf)\. Lower"):
        _fit(_cnn(), settings)


def test_divergence_in_the_last_step_of_an_epoch_is_noticed() -> None:
    one_batch = SETTINGS.model_copy(update={"learning_rate": 1e30, "batch_size": 64, "epochs": 1})
    with pytest.raises(DivergedError, match="val loss of epoch 1"):
        _fit(_cnn(), one_batch)


def test_epochs_are_yielded_as_they_finish() -> None:
    state = TrainingState(_cnn(), SETTINGS, seed=0, device=CPU)
    steps: list[int] = []
    epochs = fit(state, _task(state), VAL, on_step=lambda: steps.append(1))
    assert [record.epoch for record in itertools.islice(epochs, 2)] == [1, 2]
    assert len(steps) == 6


class _Line:
    """A task that is not classification: y = 2 x + 1, seen in random order with noise."""

    chances = None

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._x = torch.linspace(-1, 1, 32).unsqueeze(1)

    def __len__(self) -> int:
        return len(self._x)

    def batch(self, chosen: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        x = self._x[chosen]
        return x, 2 * x + 1 + 0.01 * torch.randn(x.shape, generator=self._state.variants)

    def loss(
        self, model: nn.Module, batch: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        error = model(batch[0]) - batch[1]
        return error.square().mean(), {"distance": error.detach().abs().sum()}

    def evaluate(self, model: nn.Module, examples: list[float]) -> dict[str, float]:
        with torch.no_grad():
            errors = [(model(torch.tensor([x])).item() - 2 * x - 1) ** 2 for x in examples]
        return {"loss": float(np.mean(errors)), "worst": max(errors)}


def _line(
    epochs: int, *, patience: int = 0, far: float = 0.5
) -> tuple[TrainingState, list[EpochRecord]]:
    torch.manual_seed(0)
    settings = TrainingSettings(epochs=epochs, learning_rate=0.05, batch_size=8, patience=patience)
    state = TrainingState(nn.Linear(1, 1), settings, seed=0, device=CPU)
    records = list(fit(state, _Line(state), [-0.5, far], watched={"far": [3.0]}))
    return state, records


def test_the_loop_trains_what_is_not_a_classifier_and_reports_its_figures() -> None:
    state, records = _line(40)
    assert set(records[0].figures) == {
        *("train_distance", "val_loss", "val_worst", "far_loss", "far_worst"),
    }
    assert records[-1].figures["train_distance"] < 0.05 < records[0].figures["train_distance"]
    assert records[-1].figures["far_worst"] < 0.01
    assert state.model.get_parameter("weight").item() == pytest.approx(2, abs=0.02)
    _, again = _line(40)
    assert [r.figures for r in again] == [r.figures for r in records]


def test_a_task_s_val_loss_stops_training_and_tells_divergence() -> None:
    state, records = _line(200, patience=2)
    assert len(records) == state.best_epoch + 2 < 200
    with pytest.raises(DivergedError, match="the val loss of epoch 1 is"):
        _line(3, far=float("inf"))


# The sum over each weight tensor after one epoch, as version 0.1 trained it. Processors round
# differently, by up to 0.006 of these sums; label smoothing of 0.01 changes them by 1.
_TOLERANCE = 0.03
ONE_EPOCH: dict[str, dict[str, float]] = json.loads(
    Path(__file__).with_name("one_epoch.json").read_text()
)


@pytest.mark.parametrize("preset", ONE_EPOCH)
def test_an_epoch_leaves_the_weights_that_it_always_has(preset: str) -> None:
    settings = load_preset(preset)
    torch.manual_seed(0)
    model = fresh_model(settings, image_size=28, num_classes=8)
    changes = {"epochs": 1, "batch_size": 16}
    _fit(model, settings.training.model_copy(update=changes))
    sums = {n: t.double().sum().item() for n, t in model.state_dict().items()}
    assert sums == pytest.approx(ONE_EPOCH[preset], rel=0, abs=_TOLERANCE)


def test_bf16_computes_in_bfloat16_and_keeps_fp32_weights() -> None:
    dtypes: set[torch.dtype] = set()
    model = _cnn()
    model.get_submodule("classifier.1").register_forward_hook(lambda _m, _i, o: dtypes.add(o.dtype))
    one_batch = SETTINGS.model_copy(update={"epochs": 1, "batch_size": 64})
    state = TrainingState(model, one_batch, seed=0, device=CPU, precision="bf16")
    list(fit(state, _task(state), VAL))
    assert dtypes == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_he_initialization_has_he_s_variance_and_zero_biases() -> None:
    model = _cnn()
    initialize(model)
    weight = model.get_parameter("classifier.1.weight")
    assert weight.std().item() == pytest.approx((2 / 1152) ** 0.5, rel=0.02)
    assert all((p == 0).all() for name, p in model.named_parameters() if name.endswith("bias"))


def test_a_batch_that_cannot_be_normalized_is_one_sentence() -> None:
    options = {"stem": 4, "widths": [4] * 5, "strides": [2] * 5}
    model = build_model(
        ModelSettings(name="hemanet", options=options), image_size=28, num_classes=8
    )
    state = TrainingState(model, SETTINGS.model_copy(update={"batch_size": 63}), seed=0, device=CPU)
    with pytest.raises(UsageError, match=r"training\.batch_size"):
        list(fit(state, _task(state), VAL))


def test_laboratories_and_classes_are_drawn_by_the_square_root_of_their_images() -> None:
    labels = np.repeat([0, 1, 0], [9, 4, 1])
    train = LabeledImages(
        np.zeros((14, 28, 28, 3), np.uint8),
        labels,
        tuple(map(str, range(14))),
        laboratories=("a",) * 13 + ("b",),
    )
    settings = SETTINGS.model_copy(update={"by_laboratory": True})
    state = TrainingState(_cnn(), settings, seed=0, device=CPU)
    chances = ClassificationTask(train, state, classes=BLOOD_CELLS).chances
    assert chances is not None
    drawn = [float(chances[:9].sum()), float(chances[9:13].sum()), float(chances[13:].sum())]
    assert drawn == pytest.approx([3, 2, 1])


class _Drawn(_Line):
    """Notes the order in which examples are drawn."""

    def __init__(self, state: TrainingState) -> None:
        super().__init__(state)
        self.drawn: list[Tensor] = []

    def batch(self, chosen: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        self.drawn.append(chosen)
        return super().batch(chosen, rows)


def _orders(seed: int, epochs: int) -> Tensor:
    """The examples of each epoch as they were drawn, shape (epochs, N)."""
    settings = TrainingSettings(epochs=epochs, learning_rate=0.001, batch_size=32)
    state = TrainingState(nn.Linear(1, 1), settings, seed=seed, device=CPU)
    task = _Drawn(state)
    list(fit(state, task, [0.5]))
    return torch.stack(task.drawn)


def test_every_order_of_the_examples_is_as_likely_and_comes_again_with_the_seed() -> None:
    from scipy.stats import chisquare

    orders = _orders(0, 600)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(32).expand(600, 32))
    assert torch.equal(orders, _orders(0, 600))
    assert not torch.equal(orders[0], _orders(1, 1)[0])
    # Which quarter of the data, as a shard may be, the images of each quarter of an epoch are of.
    quarters = (orders // 8).reshape(600, 4, 8)
    counts = torch.stack([(quarters == quarter).sum(dim=(0, 2)) for quarter in range(4)])
    assert chisquare(counts.flatten().numpy()).pvalue > 0.001
    followed = orders[:, 1:] - orders[:, :-1] == 1  # neighbors in the data that stay together
    assert abs(followed.sum().item() - 600 * 31 / 32) < 4 * (600 * 31 / 32) ** 0.5
    places = orders.argsort(dim=1).double()  # of each example, in one epoch and in the next
    related = torch.corrcoef(torch.stack([places[:-1].flatten(), places[1:].flatten()]))[0, 1]
    assert abs(related.item()) < 4 / (599 * 32) ** 0.5
