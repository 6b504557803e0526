"""Training in several processes, one a device: PyTorch's own data parallelism, and torchrun.

Each process has the whole network, and of every batch its share of the images. Gradients are
averaged, so the weights stay the same everywhere; the first process alone writes. Without a group,
every function here does what one process needs, and changes no bit of it.
"""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from itertools import product
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.algorithms.model_averaging.utils import average_parameters

from hemascope.core.errors import DataError, HemascopeError, UnreachableError, UsageError
from hemascope.inference.efficiency import cores
from hemascope.inference.torch_engine import pick_device
from hemascope.settings.compute import Device, in_group

T = TypeVar("T")

_PATIENCE = 10  # seconds that whoever lost the others waits, so that the cause is seen first
_APART = 2**33  # seeds of dropout, from those of order and variants
_PLACE = ("PET_NODE_RANK", "PET_MASTER_ADDR")  # torchrun's variables
_KEPT = "what was finished is kept: continue with `resume`"


def rank() -> int:
    """The number of this process; 0 where there is one."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def part_of(count: int) -> tuple[slice, float]:
    """This process's rows of a batch of `count`, and by how much its mean loss counts.

    The weights make the mean over the processes the mean over the batch, also where shares differ.
    A process that is left without an image takes the first one, which then counts nothing.
    """
    first, last = (count * number // size() for number in (rank(), rank() + 1))
    rows = slice(first, last) if first < last else slice(1)
    return rows, (last - first) * size() / count


def summed(value: Tensor) -> Tensor:
    """The sum of a number over all processes."""
    if size() > 1:
        dist.all_reduce(value)
    return value


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives the first process, which alone calls it."""
    held: list[Any] = [make() if rank() == 0 else None]
    if size() > 1:
        dist.broadcast_object_list(held)
    return held[0]


def check_same(**facts: str) -> None:
    """Holds all processes to what the first one has, such as the data's md5.

    Raises:
        DataError: If they differ, in every process alike.
    """
    found = [facts] * size()
    if size() > 1:
        dist.all_gather_object(found, facts)
    for (number, other), what in product(enumerate(found), facts):
        if other[what] != found[0][what]:
            raise DataError(f"process {number} has other {what} than process 0; give all the same.")


def synchronized(model: nn.Module, device: torch.device) -> tuple[nn.Module, str]:
    """A network whose batch statistics are of whole batches, where PyTorch can; else a note."""
    if size() == 1 or not any("running_mean" in name for name, _ in model.named_buffers()):
        return model, ""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model), ""
    return model, (
        "Note: batch statistics are of each process's share of a batch; PyTorch's SyncBatchNorm, "
        "which takes the whole batch's, runs on GPUs alone."
    )


def shared(model: nn.Module) -> nn.Module:
    """The same network, whose gradients are averaged over all processes."""
    data_parallel = nn.parallel.DistributedDataParallel
    return model if size() == 1 else data_parallel(model, forward_sync_buffers=False)


def average_buffers(model: nn.Module) -> None:
    """Makes the running statistics of all processes their mean."""
    found = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if size() > 1 and found:
        average_parameters(iter(found), dist.group.WORLD)  # pyright: ignore[reportArgumentType]


def seed_dropout(seed: int, epoch: int) -> None:
    """Gives all processes but the first a dropout of their own, the same when resumed."""
    if rank():
        torch.manual_seed(seed + _APART * rank() + epoch)


@contextmanager
def joined(device: Device) -> Generator[None]:
    """Is in the group that torchrun started this process for, if it did, while the block runs.

    Raises:
        UsageError: If this machine has no device for it.
        SystemExit: In a group, in place of an error, which the process that started it says.
    """
    if not in_group():
        yield
        return
    try:
        kind = pick_device(device).type
        if kind == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo")
        yield
        dist.destroy_process_group()
    except KeyboardInterrupt:
        sys.exit(130)
    except (HemascopeError, MemoryError, RuntimeError) as error:
        text, code = str(error), getattr(error, "exit_code", 2)
        if isinstance(error, HemascopeError):
            text = f"`{error.field}`: {text}" if error.field else text
        elif "gloo" in text or isinstance(error, dist.DistError):
            time.sleep(_PATIENCE)  # another one ended: that is the error to show
            text, code = f"the connection to the other processes was lost; {_KEPT}.", 1
        elif isinstance(error, MemoryError) or "memory" in text:
            text = f"process {rank()} is out of memory ({text}); {_KEPT} and less of it: {_LESS}."
        else:
            raise
        from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

        ErrorHandler().record_exception(RuntimeError(text))
        sys.exit(code)


def launch(devices: int, nodes: int, device: Device) -> None:
    """Runs this command again in a process for each device, through torchrun, and waits for them.

    Raises:
        UsageError: If this machine has fewer devices, or a process could not carry it out.
        UnreachableError: If data could not be fetched.
        KeyboardInterrupt: If it was interrupted.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    kind = pick_device(device).type
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(kind, cores())
    if devices > there:
        unit = "core(s)" if kind == "cpu" else f"{kind} device(s)"
        raise UsageError(
            f"it is {devices}, but this machine has {there} {unit}; give at most {there}.",
            field="devices",
        )
    if nodes > 1 and not all(os.environ.get(name) for name in _PLACE):
        raise UsageError(
            f"set {_PLACE[0]} (this machine's number, from 0) and {_PLACE[1]} (of machine 0).",
            field="nodes",
        )
    logging.disable()  # torchrun's own; what happened is said below
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // devices, 1)))
    place = ["--nnodes", str(nodes)] if nodes > 1 else ["--local-addr", "localhost"]
    command = ["--nproc-per-node", str(devices), "-m", "hemascope", *sys.argv[1:]]
    try:
        run.run(run.parse_args([*place, *command]))
    except SignalException as error:
        raise KeyboardInterrupt from error
    except ChildFailedError as error:
        raise _cause(error.failures) from error


_LESS = "fewer `devices`, or a smaller training.batch_size"


def _cause(failures: Mapping[int, Any]) -> HemascopeError:
    """What ended a group: a process that was killed, else what one of them said."""
    for number, failure in failures.items():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # which torchrun sends
            return UsageError(
                f"process {number} was ended by {failure.signal_name()}, possibly out of memory; "
                f"{_KEPT}. For less memory: {_LESS}."
            )
    for failure in sorted(failures.values(), key=lambda one: one.exitcode == 1):
        said = failure.error_file_data["message"]  # a text where the process said nothing
        if isinstance(said, dict):
            kind = UnreachableError if failure.exitcode == 3 else UsageError
            return kind(str(said["message"]).removeprefix("RuntimeError: "))
    return UsageError(f"a process ended by an error of its own, shown above; {_KEPT}.")
