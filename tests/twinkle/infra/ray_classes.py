"""Remote classes for tests, and what to ask of Ray about them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.util.placement_group import placement_group_table

from twinkle import DeviceMesh, remote_class, remote_function
from twinkle.errors import DataError
from twinkle.infra import current_rank, torch_environment

WAIT_S = 20.0


class Unpicklable(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")


class Countdown:
    """An iterator without end, with a ``close`` of its own that may be called from another thread."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.closed.wait(WAIT_S):
            raise StopIteration
        raise TimeoutError("nobody closed the countdown")

    def close(self) -> None:
        self.closed.set()


@remote_class
class Ranks:
    """One actor a rank."""

    def __init__(self, tag: str = "", device_mesh: DeviceMesh | None = None, remote_group: str | None = None) -> None:
        if tag.startswith("/"):
            self._break_half(Path(tag))
        self.tag, self.mesh, self.group = tag, device_mesh, remote_group
        self.calls, self.events, self.gate = 0, list[str](), threading.Event()
        self.released = threading.Event()

    def _break_half(self, folder: Path) -> None:
        """Rank 1 cannot be built, once rank 0 is."""
        if current_rank().rank == 1:
            until((folder / "built").exists)
            raise DataError("rank 1 is broken")
        (folder / "built").touch()

    def close(self) -> None:
        if self.tag.startswith("/"):
            (Path(self.tag) / "closed").touch()

    @remote_function(collect=lambda results, offsets: results)
    def whoami(self) -> dict[str, Any]:
        """Of this process."""
        rank = current_rank()
        return {
            "rank": rank.rank,
            "ranks": list(rank.ranks),
            "data_rank": rank.data_rank,
            "world_size": rank.world_size,
            "mesh": str(self.mesh),
            "group": (self.group, rank.group.name if rank.group else None),
            "devices": list(rank.devices),
            "node": ray.get_runtime_context().get_node_id(),
            "pid": os.getpid(),
            "environ": {name: os.environ.get(name) for name in ("TWINKLE_X", "OTHER_X", "CUDA_VISIBLE_DEVICES")},
        }

    @remote_function(dispatch="slice_dp")
    def double(self, items: list[int]) -> list[int]:
        """Twice each; right only where a model's output arises."""
        self.calls += 1
        here = current_rank()
        wrong = here.mesh.pp_rank(here.ranks[-1]) < here.mesh.pp_size - 1
        return [0] if wrong else [2 * item for item in items]

    @remote_function(dispatch="slice_dp")
    def where(self, item: Any) -> Any:
        """Which data rank is asked."""
        return [current_rank().data_rank] if isinstance(item, list) else current_rank().data_rank

    @remote_function(collect="sum")
    def total(self, value: float = 1) -> float:
        return value

    @property
    @remote_function(collect=lambda results, offsets: results)
    def seen(self) -> int:
        """How often each was called."""
        return self.calls

    @remote_function
    def fail(self, at: int, unpicklable: bool = False) -> None:
        """Raise at one rank; the others wait, as in a collective that lacks a member."""
        if current_rank().rank != at:
            self.released.wait(WAIT_S)
        raise Unpicklable("two", "words") if unpicklable else DataError("row 3 is bad")

    @remote_function
    def die(self, at: int) -> None:
        if current_rank().rank == at:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(WAIT_S)

    @remote_function(urgent=True)
    def release(self) -> None:
        """Let those go that wait in `fail`."""
        self.released.set()

    @remote_function(timeout_s=0.2)
    def sleep(self) -> None:
        self.gate.wait(WAIT_S)

    @remote_function(urgent=True)
    def wake(self) -> None:
        self.gate.set()

    @remote_function(dispatch="slice_dp", stream=True, collect=lambda item, offset: (offset + item[0], item[1]))
    def spell(self, words: list[str], endless: bool = False) -> Iterator[tuple[int, str]]:
        """The letters of words, each with its word's index."""
        self.events.append("begun")
        try:
            for index, word in enumerate(words):
                for letter in word:
                    yield index, letter
            while endless:
                time.sleep(0.01)
                yield 0, "."
        finally:
            self.events.append("closed")

    @remote_function(stream=True)
    def countdown(self) -> Iterator[int]:
        return iter(Countdown())

    @remote_function(urgent=True, collect=lambda results, offsets: results)
    def told(self) -> list[str]:
        """What became of the streams at each rank."""
        return self.events

    @remote_function(collect="sum", timeout_s=60)
    def all_reduce(self, value: float) -> float:
        """The sum over all ranks, through torch."""
        import torch
        import torch.distributed as dist

        os.environ.update(torch_environment())
        dist.init_process_group("gloo")
        tensor = torch.tensor(value * (dist.get_rank() + 1))
        dist.all_reduce(tensor)
        dist.destroy_process_group()
        return float(tensor)

    @remote_function
    def generator(self) -> Iterator[int]:
        yield 1

    @remote_function
    def gpus(self) -> int:
        """How many torch sees."""
        import torch

        return torch.cuda.device_count()

    def secret(self) -> None:
        """Not declared."""


@remote_class(actors="replica", concurrency=2)
class Replicas(Ranks):
    """One actor a replica, two calls at once."""

    @remote_function(collect="first", timeout_s=WAIT_S)
    def meet(self) -> bool:
        """True once two calls are in here at the same time."""
        barrier = self.__dict__.setdefault("barrier", threading.Barrier(2))
        barrier.wait(WAIT_S)
        return True


def until(holds: Callable[[], bool]) -> None:
    """Wait for something that Ray does in its own time."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def ended(pid: int) -> bool:
    """Whether no such process is there any more, other than one that nobody waited for."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def placement_groups() -> int:
    """How many the cluster has or wants."""
    return sum(table["state"] != "REMOVED" for table in placement_group_table().values())
