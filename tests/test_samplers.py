"""The use cases of samplers, each through a real controller and a client: read it beside the samplers' document.

What single classes promise in detail is tested in tests/transfer_queue.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from transfer_queue import (
    BaseSampler,
    BatchMeta,
    DPGroupError,
    DPSampler,
    GroupError,
    GRPOSampler,
    NotReadyError,
    SamplerError,
    SequentialSampler,
    TransferQueueClient,
    TransferQueueController,
)

DEMONSTRATION = Path(__file__).parents[1] / "recipe" / "samplers_simple_demo.py"
PROMPTS, SAMPLES = 4, 4
ROWS = PROMPTS * SAMPLES


class Queue:
    """A controller of 4 prompts with 4 samples each per step, and clients; `with_rows` puts step 0 completely."""

    def __init__(self, stack: ExitStack, **arguments: Any) -> None:
        self._stack = stack
        arguments = {"global_batch_size": PROMPTS, "num_n_samples": SAMPLES, **arguments}
        self.controller = stack.enter_context(TransferQueueController.start(**arguments))
        self.client = self.connect("client")

    def connect(self, name: str) -> TransferQueueClient:
        return self._stack.enter_context(TransferQueueClient(name, self.controller.get_info()))

    def with_rows(self) -> "Queue":
        self.client.put({"prompts": [f"p{i // SAMPLES}" for i in range(ROWS)]}, global_step=0)
        return self

    def take(self, task: str, rows: int, client: TransferQueueClient | None = None, **rest: Any) -> BatchMeta:
        """So many rows of step 0 for this task."""
        return (client or self.client).get_meta(["prompts"], rows, 0, task, **{"timeout_s": 60, **rest})

    def rows(self, task: str, rows: int, client: TransferQueueClient | None = None, **rest: Any) -> list[int]:
        """The same by their numbers in the step, 0 to 15; rows 4 * i to 4 * i + 3 are of prompt i."""
        return [index % ROWS for index in self.take(task, rows, client, **rest).global_indexes]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends the controllers and clients of a test."""
    with ExitStack() as open_ones:
        yield open_ones


@pytest.fixture(scope="module")
def plain() -> Iterator[Queue]:
    """One controller with the default sampler for all the tests that need no other."""
    with ExitStack() as open_ones:
        yield Queue(open_ones)


@pytest.fixture
def queue(plain: Queue) -> Queue:
    """The plain queue with fresh rows."""
    plain.client.clear(0, force=True)
    return plain.with_rows()


def rank(number: int, of: int, group: str = "step 0") -> dict[str, Any]:
    return {"dp_rank": number, "dp_size": of, "dp_group_id": group}


class EveryOther(BaseSampler):
    """A sampler of one's own: ready rows of one parity, chosen when it is made or per call."""

    def __init__(self, parity: int = 0) -> None:
        self.parity = parity

    def sample(self, ready_indices: list[int], batch_size: int, **kwargs: Any) -> list[int]:
        parity = kwargs.get("parity", self.parity)
        return [i for i in ready_indices if i % 2 == parity][:batch_size]

    def filter_ready_indices(
        self,
        all_indices: list[int],
        production_status: Any,
        consumption_status: Any,
        data_fields: list[str],
        field_mapping: dict[str, int],
        **kwargs: Any,
    ) -> list[int]:
        if any(field not in field_mapping for field in data_fields):
            return []
        ready = production_status[:, [field_mapping[field] for field in data_fields]].all(1) & ~consumption_status
        return [i for i in all_indices if ready[i]]


def four_samples() -> GRPOSampler:
    """A constructor to be called later; a function of a module travels, a lambda needs Ray."""
    return GRPOSampler(num_n_samples=SAMPLES)


# The default: SequentialSampler


@pytest.mark.parametrize("default", [{}, {"sampler": SequentialSampler()}])
def test_rows_come_in_order_and_once_per_task(stack: ExitStack, default: dict[str, Any]) -> None:
    queue = Queue(stack, **default).with_rows()

    assert queue.rows("a", 3) == [0, 1, 2]
    assert queue.rows("a", 13) == list(range(3, ROWS))
    assert queue.rows("b", ROWS) == list(range(ROWS))


# GRPOSampler: whole groups. Here as the default of all tasks, given when the controller is made (pattern 2)


def test_a_default_sampler_serves_every_task(stack: ExitStack) -> None:
    queue = Queue(stack, sampler=GRPOSampler(num_n_samples=SAMPLES)).with_rows()
    for task in ("train", "any other"):
        with pytest.raises(GroupError, match=r"batch_size=6 is not divisible by num_n_samples=4"):
            queue.take(task, 6)
        assert queue.take(task, 8).group_ids == [0] * SAMPLES + [1] * SAMPLES


def test_a_group_is_taken_when_all_its_samples_are_ready_and_not_before(stack: ExitStack) -> None:
    queue = Queue(stack, sampler=GRPOSampler(num_n_samples=SAMPLES))
    for number in (1, 0, 0, 1, 1, 0):
        queue.client.put({"prompts": [f"p{number}"]}, global_step=0, group_id=f"p{number}")
    with pytest.raises(NotReadyError, match="6 in groups of which 3/4 are ready"):
        queue.take("train", 4, timeout_s=0)
    queue.client.put({"prompts": ["p0"]}, global_step=0, group_id="p0")

    assert queue.take("train", 4).group_ids == ["p0"] * SAMPLES
    with pytest.raises(NotReadyError):
        queue.take("train", 4, timeout_s=0)


def test_a_constructor_makes_the_sampler_later(stack: ExitStack) -> None:
    """Pattern 4."""
    queue = Queue(stack, sampler=four_samples).with_rows()

    assert queue.take("train", 4).group_ids == [0] * SAMPLES
    with pytest.raises(GroupError, match="not divisible"):
        queue.take("train", 2)
    with pytest.raises(SamplerError, match=r"a lambda cannot travel .* with Ray"):
        TransferQueueController.start(global_batch_size=1, sampler=lambda: GRPOSampler(1))


# Samplers per task, registered with a controller that runs (pattern 3)


def test_tasks_use_the_samplers_that_were_registered_for_them(queue: Queue) -> None:
    queue.controller.register_sampler(task_name="grpo", sampler=GRPOSampler(num_n_samples=SAMPLES))
    queue.controller.register_sampler(task_name="dp", sampler=DPSampler(dp_rank=1, dp_size=2))

    with pytest.raises(GroupError):
        queue.take("grpo", 3)
    assert queue.rows("dp", 3) == [3, 4, 5]
    assert queue.rows("other", 3) == [0, 1, 2]


def test_each_rank_registers_its_own_dp_sampler(queue: Queue) -> None:
    ranks = [queue.connect(f"rank {number}") for number in range(2)]
    for number, client in enumerate(ranks):
        client.register_sampler("train", DPSampler(dp_rank=number, dp_size=2))

    assert [queue.rows("train", 8, client) for client in ranks] == [[*range(8)], [*range(8, 16)]]


# DPSampler, with parameters in get_meta (pattern 1, recommended)


def test_ranks_share_a_pool_in_slices_that_never_overlap(queue: Queue) -> None:
    slices = [queue.rows("train", 4, sampler_params=rank(number, of=4)) for number in range(4)]

    assert slices == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]


def test_ranks_of_different_groups_get_different_rows_in_any_order_of_calls(queue: Queue) -> None:
    calls = [(1, "g"), (0, "h"), (0, "g"), (1, "h")]
    rows = {call: queue.rows("train", 4, sampler_params=rank(call[0], 2, call[1])) for call in calls}

    assert rows[0, "g"] + rows[1, "g"] + rows[0, "h"] + rows[1, "h"] == list(range(ROWS))


def test_the_same_rank_gets_the_same_rows_until_the_group_is_complete(queue: Queue) -> None:
    first, peer = (queue.rows("train", 8, sampler_params=rank(0, of=2)) for _ in range(2))
    assert first == peer
    queue.take("train", 8, sampler_params=rank(1, of=2))

    with pytest.raises(DPGroupError, match="use a new dp_group_id"):
        queue.take("train", 8, sampler_params=rank(0, of=2))


def test_rows_are_consumed_only_after_every_rank_consumed_them(queue: Queue) -> None:
    consumed = []
    for number in range(4):
        queue.take("train", 4, sampler_params=rank(number, of=4))
        consumed.append(queue.client.stats().tasks["train"].consumed)

    assert consumed == [0, 0, 0, ROWS]


def test_slices_of_a_grpo_task_are_whole_groups(stack: ExitStack) -> None:
    queue = Queue(stack, task_samplers={"train": GRPOSampler(num_n_samples=SAMPLES)}).with_rows()
    slices = [queue.take("train", 8, sampler_params=rank(number, of=2)).group_ids for number in range(2)]

    assert slices == [[0] * 4 + [1] * 4, [2] * 4 + [3] * 4]


def test_a_rank_out_of_range_is_told_the_range(queue: Queue) -> None:
    with pytest.raises(DPGroupError, match=r"dp_rank=4 is out of range: dp_size=4 allows 0 to 3"):
        queue.take("train", 4, sampler_params=rank(4, of=4))

    assert queue.client.stats().tasks["train"].leased == 0


# Samplers of one's own


def test_a_custom_sampler_with_arguments_and_with_parameters_per_call(stack: ExitStack) -> None:
    queue = Queue(stack, task_samplers={"odd": EveryOther(parity=1), "any": EveryOther}).with_rows()

    assert queue.rows("odd", 3) == [1, 3, 5]
    assert queue.rows("odd", 3) == [7, 9, 11]
    assert queue.rows("any", 2, sampler_params={"parity": 1}) == [1, 3]
    assert queue.rows("any", 2) == [0, 2]


def test_the_demonstration_keeps_its_claims_and_leaves_nothing_behind(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(DEMONSTRATION)],
        env={"PYTHONPATH": str(DEMONSTRATION.parents[1]), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("Everything was as claimed.\n")
    assert list(tmp_path.iterdir()) == []
