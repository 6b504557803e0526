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
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm  # pyright: ignore[reportPrivateUsage] - the base of all of them

from hemascope.core.errors import DataError, HemascopeError, UnreachableError, UsageError
from hemascope.inference.efficiency import cores
from hemascope.inference.torch_engine import pick_device
from hemascope.settings.compute import Device, Processes, in_group

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

T = TypeVar("T")

_PATIENCE = 10  # seconds that whoever lost the others waits, so that the cause is seen first
_PER_PROCESS = 2**33  # apart from the seeds of order and variants


class Part(NamedTuple):
    """A process's share of a batch: its rows, and by how much the mean loss over them counts."""

    rows: slice
    weight: float


def rank() -> int:
    """The number of this process; 0 where there is one."""
    return dist.get_rank() if dist.is_initialized() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def part_of(count: int) -> Part:
    """This process's share of a batch of `count`.

    The weights make the mean over the processes the mean over the batch, also where shares differ.
    A process that is left without an image takes the first one, which then counts nothing.
    """
    first, last = (count * number // size() for number in (rank(), rank() + 1))
    if first == last:
        return Part(slice(1), 0.0)
    return Part(slice(first, last), (last - first) * size() / count)


def summed(value: Tensor) -> Tensor:
    """The sum of a number over all processes."""
    if size() > 1:
        dist.all_reduce(value)
    return value


def from_first(make: Callable[[], T]) -> T:
    """What `make` gives the first process, which alone calls it."""
    if size() == 1:
        return make()
    held = [make() if rank() == 0 else None]
    dist.broadcast_object_list(held)
    return held[0]  # pyright: ignore[reportReturnType] - the first one's


def check_same(**facts: str) -> None:
    """Holds all processes to what the first one has, such as the md5 of the data.

    Raises:
        DataError: If they differ, in every process alike.
    """
    found: list[dict[str, str]] = [facts] * size()
    if size() > 1:
        dist.all_gather_object(found, facts)
    for number, other in enumerate(found):
        for what in facts:
            if other[what] != found[0][what]:
                raise DataError(
                    f"process {number} has other {what} than process 0 ({other[what]} against "
                    f"{found[0][what]}); give all machines the same."
                )


def synchronized(model: nn.Module, device: torch.device) -> tuple[nn.Module, str]:
    """A network whose batch statistics are of whole batches, where PyTorch can; else a note."""
    if size() == 1 or not any(isinstance(part, BatchNorm) for part in model.modules()):
        return model, ""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model), ""
    return model, (
        "Note: batch statistics are of each process's share of a batch; PyTorch's SyncBatchNorm, "
        "which takes the whole batch's, runs on GPUs alone."
    )


def shared(model: nn.Module) -> nn.Module:
    """The same network, whose gradients are averaged over all processes."""
    if size() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, forward_sync_buffers=False)


def average_buffers(model: nn.Module) -> None:
    """Makes the running statistics of all processes their mean."""
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if size() > 1 and buffers:
        flat = summed(torch.cat([buffer.flatten() for buffer in buffers])) / size()
        for buffer, mean in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))


def seed_dropout(seed: int, epoch: int) -> None:
    """Gives all processes but the first a dropout of their own, the same when resumed."""
    if rank():
        torch.manual_seed(seed + _PER_PROCESS * rank() + epoch)


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
        local, chosen = int(os.environ["LOCAL_RANK"]), pick_device(device)
        if chosen.type == "cuda":
            _check_devices(int(os.environ["LOCAL_WORLD_SIZE"]), device)
            torch.cuda.set_device(local)
        dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
        yield
    except KeyboardInterrupt:
        sys.exit(130)
    except HemascopeError as error:
        _leave(f"`{error.field}`: {error}" if error.field else str(error), error.exit_code)
    except RuntimeError as error:
        if "gloo" not in str(error) and not isinstance(error, dist.DistError):
            raise
        time.sleep(_PATIENCE)  # another one ended: that is the error to show
        _leave(f"the connection to the other processes was lost; {_KEPT}", 1)
    dist.destroy_process_group()


_KEPT = "what was finished is kept: continue with `resume`."


def _leave(message: str, code: int) -> NoReturn:
    """Ends this process; torchrun's file of errors says why."""
    from torch.distributed.elastic.multiprocessing.errors import ErrorHandler

    ErrorHandler().record_exception(RuntimeError(message))
    sys.exit(code)


def launch(asked: Processes, device: Device) -> None:
    """Runs this command again in a process for each device, through torchrun, and waits for them.

    Raises:
        UsageError: If this machine has fewer devices, or a process could not carry it out.
        UnreachableError: If data could not be fetched.
        KeyboardInterrupt: If it was interrupted.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    _check_devices(asked.devices, device)
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores() // asked.devices, 1)))
    place = ["--local-addr", "localhost"]
    if asked.nodes > 1:
        host, _, port = asked.master.rpartition(":")
        place = ["--nnodes", str(asked.nodes), "--node-rank", str(asked.node_rank)]
        place += ["--master-addr", host, "--master-port", port]
    program = ["--nproc-per-node", str(asked.devices), "-m", "hemascope", *sys.argv[1:]]
    try:
        run.run(run.parse_args([*place, *program]))
    except SignalException as error:
        raise KeyboardInterrupt from error
    except ChildFailedError as error:
        raise _cause(error.failures, asked) from error


def _cause(failures: "dict[int, ProcessFailure]", asked: Processes) -> HemascopeError:
    """What ended a group: a process that was killed, else what one of them said."""
    for number, failure in failures.items():
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:  # which torchrun sends
            return UsageError(
                f"process {number} of {asked.devices * asked.nodes} was ended by "
                f"{failure.signal_name()}, possibly out of memory; {_KEPT} For less memory, give "
                "fewer `devices` or a smaller training.batch_size."
            )
    for failure in sorted(failures.values(), key=lambda one: one.exitcode == 1):
        said: Any = failure.error_file_data["message"]  # a text where the process said nothing
        if isinstance(said, dict):
            kind = UnreachableError if failure.exitcode == 3 else UsageError
            return kind(said["message"].partition(": ")[2])
    return UsageError(f"a process ended by an error of its own, shown above; {_KEPT}")


def _check_devices(count: int, device: Device) -> None:
    chosen = pick_device(device).type
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(chosen, cores())
    if count > there:
        kind = "core(s)" if chosen == "cpu" else f"{chosen} device(s)"
        raise UsageError(
            f"it is {count}, but this machine has {there} {kind}; give at most {there}.",
            field="devices",
        )
