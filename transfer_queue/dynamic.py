"""Dynamic sampling: a batch of groups that teach something, the others dropped and, if wanted, sampled anew.

A group whose samples all got the same reward has advantage zero everywhere, so it costs a training step its time and
gives it no gradient (the dynamic sampling of DAPO, 2025). `informative_groups` leaves such groups out of the batch:

    batch = informative_groups(client, ["reward", "response_ids"], 32, "train", num_n_samples=8, global_step=step)
    train(batch.data())
    batch.ack_all()
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from transfer_queue.client import TransferQueueClient
from transfer_queue.errors import ConfigurationError, FieldError, GroupError, LeaseError, NotReadyError
from transfer_queue.meta import BatchMeta

ZERO_VARIANCE = "zero_variance"
"""The reason with which groups of equal rewards are dropped."""


@dataclass
class GroupBatch:
    """Whole groups in this consumer's hands, each under a lease of its own; `dropped` groups taught nothing."""

    client: TransferQueueClient
    lease_s: float
    metas: list[BatchMeta] = field(default_factory=list)
    dropped: int = 0
    _extended: float = field(default_factory=time.monotonic)

    def __len__(self) -> int:
        return sum(map(len, self.metas))

    @property
    def meta(self) -> BatchMeta:
        """All rows as one, to read from; without a lease, because each group has its own."""
        first = self.metas[0]
        return BatchMeta(
            [index for meta in self.metas for index in meta.global_indexes],
            first.fields,
            [step for meta in self.metas for step in meta.global_steps],
            [group for meta in self.metas for group in meta.group_ids],
            first.task_name,
        )

    def data(self, fields: Sequence[str] | None = None) -> Any:
        """The values of all rows, as `client.get_data` gives them."""
        return self.client.get_data(self.meta, fields)

    def extend_all(self) -> None:
        """Let every lease begin anew; `LeaseError` if one of them is over."""
        for meta in self.metas:
            self.client.extend(meta, self.lease_s)
        self._extended = time.monotonic()

    def extend_if_due(self) -> None:
        """`extend_all`, if a third of the leases' time has passed."""
        if time.monotonic() - self._extended > self.lease_s / 3:
            self.extend_all()

    def ack_all(self) -> None:
        """Consume all rows; if one lease is over, `LeaseError` and none is consumed."""
        self.extend_all()
        for meta in self.metas:
            self.client.ack(meta)

    def release_all(self) -> None:
        """Give all rows back that are not given back yet."""
        while self.metas:
            try:
                self.client.release(self.metas.pop())
            except LeaseError:
                continue  # those rows went back by themselves


def informative_groups(
    client: TransferQueueClient,
    data_fields: Sequence[str],
    batch_size: int,
    task_name: str,
    *,
    num_n_samples: int,
    reward_field: str = "reward",
    tolerance: float = 0.0,
    refill: bool = False,
    global_step: int | None = None,
    sampler_params: Mapping[str, Any] | None = None,
    lease_s: float = 60.0,
    timeout_s: float = 300.0,
) -> GroupBatch:
    """`batch_size` rows in whole groups whose rewards differ by more than `tolerance`, to `ack_all` when trained on.

    Groups are taken one by one; one whose rewards are all the same is dropped for every task with the reason
    "zero_variance". With `refill=True` it makes room in its step for a new group, which whoever puts prompts may put.
    The leases of the groups that wait for the batch to fill are extended meanwhile. Where the batch cannot be filled
    (`NotReadyError` after `timeout_s`, `ExhaustedError`), the groups that were kept go back to the task.
    """
    _check(batch_size, num_n_samples, reward_field, data_fields)
    batch, source = GroupBatch(client, lease_s), _Source(client, data_fields, task_name, global_step, sampler_params)
    deadline = time.monotonic() + timeout_s
    try:
        while len(batch) < batch_size:
            meta = source.next_group(batch, num_n_samples, batch_size, deadline)
            rewards = _rewards(client, meta, reward_field)
            if max(rewards) - min(rewards) > tolerance:
                batch.metas.append(meta)
            else:
                client.drop(meta, ZERO_VARIANCE, refill=refill)
                batch.dropped += 1
    except BaseException:
        batch.release_all()
        raise
    return batch


def _check(batch_size: int, num_n_samples: int, reward_field: str, data_fields: Sequence[str]) -> None:
    if num_n_samples < 1 or batch_size < 1 or batch_size % num_n_samples:
        raise GroupError(
            f"batch_size={batch_size} is no multiple of num_n_samples={num_n_samples}: a batch is made of whole groups"
        )
    if reward_field not in data_fields:
        raise ConfigurationError(
            f"reward_field={reward_field!r} is not in data_fields={list(data_fields)}: a group without its rewards "
            "cannot be judged"
        )


@dataclass(frozen=True)
class _Source:
    """Where the groups come from."""

    client: TransferQueueClient
    data_fields: Sequence[str]
    task_name: str
    global_step: int | None
    sampler_params: Mapping[str, Any] | None

    def next_group(self, batch: GroupBatch, size: int, batch_size: int, deadline: float) -> BatchMeta:
        """One more group; waits in pieces, between which the leases of those at hand are extended."""
        try:
            return self._get(size, batch.lease_s, 0.0)
        except NotReadyError:
            self._check_possible(batch_size)
        while True:
            batch.extend_if_due()
            left = deadline - time.monotonic()
            piece = min(left, batch.lease_s / 3) if batch.metas else left
            try:
                return self._get(size, batch.lease_s, max(0.0, piece))
            except NotReadyError as error:
                if piece == left:
                    dropped = f"; {batch.dropped} groups were dropped ({ZERO_VARIANCE})" if batch.dropped else ""
                    text = f"{error}; {len(batch)} rows at hand went back to the task{dropped}"
                    raise NotReadyError(text, error.details) from error

    def _get(self, rows: int, lease_s: float, timeout_s: float) -> BatchMeta:
        return self.client.get_meta(
            self.data_fields, rows, self.global_step, self.task_name, True, self.sampler_params,
            lease_s=lease_s, timeout_s=timeout_s,
        )  # fmt: skip

    def _check_possible(self, batch_size: int) -> None:
        """`ExhaustedError` if the whole batch can never come together; one group, with others at hand, always might."""
        try:
            self.client.release(self._get(batch_size, 1.0, 0.0))
        except NotReadyError:
            return


def _rewards(client: TransferQueueClient, meta: BatchMeta, reward_field: str) -> list[float]:
    """One finite number per row; on anything else the group goes back and the error names it."""
    values = client.get_data(meta, [reward_field])[reward_field]
    rewards = values.tolist() if hasattr(values, "tolist") else list(values)
    if not all(isinstance(reward, int | float) and reward - reward == 0 for reward in rewards):
        client.release(meta)
        raise FieldError(
            f"field {reward_field!r} of group {meta.group_ids[0]!r} holds {rewards!r:.100}, not one finite number per "
            "row"
        )
    return rewards
