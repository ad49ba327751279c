"""`TransferQueueClient`: put rows, get rows, acknowledge them; every call has a deadline."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from transfer_queue import wire
from transfer_queue.carrier import Carrier
from transfer_queue.columns import decode_fields, encode_fields
from transfer_queue.errors import (
    BackPressureError,
    ConfigurationError,
    FieldError,
    FieldLostError,
    GroupError,
    LeaseError,
    StepClearedError,
    TransferQueueError,
)
from transfer_queue.exchange import GRACE_S, Ask, Steps, awaiting, blocking
from transfer_queue.ledger.explain import Explanation
from transfer_queue.ledger.request import check_seconds
from transfer_queue.meta import BatchMeta
from transfer_queue.peeking import Peeked, readable
from transfer_queue.samplers.travel import SamplerLike, spec_of
from transfer_queue.storage.base import MemoryPlane, Plane, Stored, are_roots_inside
from transfer_queue.transport.address import address_of

NOT_PUT = (BackPressureError, FieldError, GroupError, LeaseError, StepClearedError)
"""Refusals of a put; after any other error the controller may know of its values, now or once it is back."""

ReplyT = TypeVar("ReplyT", bound=wire.ReplyBody)


class TransferQueueClient(Carrier):
    """A producer or consumer of one queue. May be shared by threads, and used in a forked child.

    `client_id` names it in leases and messages; `controller_info` is what `controller.get_info()` gave.
    `call_timeout_s` bounds the calls that never wait for rows. Every call exists twice: `put` returns when it is done,
    `await async_put` lets others run meanwhile.
    """

    def __init__(self, client_id: str, controller_info: Mapping[str, Any], *, call_timeout_s: float = 60.0) -> None:
        name: object = client_id
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"client_id must be a name, not {client_id!r}")
        address_of(controller_info)  # what is wrong with it is said here, not by the first call
        self.client_id = client_id
        self._call_timeout_s = call_timeout_s
        super().__init__(controller_info)
        self._plane = self._make_plane()
        self._unheard: deque[tuple[int, int, Stored]] = deque()

    def close(self) -> None:
        """Close the connections; may be called twice. Leases and values stay until they are over."""
        if not self._closed:
            with contextlib.suppress(TransferQueueError):  # it is gone, and with it whoever cared for the values
                self._plane.close()
        super().close()

    def _put(
        self,
        data: Mapping[str, Any],
        metadata: BatchMeta | None = None,
        global_step: int | None = None,
        *,
        group_id: str | int | Sequence[str | int] | None = None,
        ack: bool = False,
        timeout_s: float = 300.0,
    ) -> Steps[BatchMeta]:
        """New rows with these fields, or with `metadata` more fields of its rows.

        A field is a tensor or array with one row first, a list of tensors or arrays of any shapes, or a list of
        strings, bytes or JSON-like values.

        New rows go to `global_step`, or without one to the oldest partition with room. They form groups of
        `num_n_samples` in order, unless `group_id` (one for all rows, or one per row) says which prompt each belongs
        to. While `num_global_batch` partitions are alive, or their values take `capacity_bytes`, a put of new rows
        waits, at most `timeout_s` (`BackPressureError`). Rows under a lease may be written only while it lives
        (`LeaseError`). With `ack` that lease is acknowledged too, in one round trip: both are done, or neither.
        """
        if metadata is not None and (global_step is not None or group_id is not None):
            raise GroupError("put with metadata adds fields to rows that exist: global_step and group_id do not apply")
        check_seconds("timeout_s", timeout_s)
        rows, columns, frames = encode_fields(data)
        groups = None if group_id is None else _group_ids(group_id, rows)
        indexes, lease = (metadata.global_indexes, metadata.lease) if metadata is not None else ([], None)
        done = _ack_of(metadata, "put with ack") if ack else None
        body = wire.Put(rows, columns, indexes, lease, global_step, groups, timeout_s, ack=done)
        reply = yield from self._send(body, frames)
        names = [column.name for column in columns]
        if metadata is not None:
            return metadata.with_fields(names)
        return BatchMeta(reply.indexes, names, reply.steps, reply.group_ids)

    def _send(self, put: wire.Put, frames: Sequence[Any]) -> Steps[wire.Rows]:
        """Put away the values and tell the controller of them; room for values that it refuses is free again."""
        timeout_s = put.timeout_s

        def waits() -> str:
            return f"put of {put.rows} rows waited for room"

        inside = not put.indexes and self._info.get("durable") is True and are_roots_inside(put.rows, frames)
        plane = MemoryPlane() if inside else self._plane
        yield from self._settle_unheard()
        for last_try in (False, True):
            stored = yield from plane.store(frames, timeout_s)
            unheard = self._noting(stored) if stored.extents else None
            body = msgspec.structs.replace(put, extents=stored.extents)
            try:
                reply, _ = yield Ask(wire.Rows, body, stored.frames, timeout_s + GRACE_S, waits, unheard=unheard)
                rows: wire.Rows = reply
                return rows
            except NOT_PUT:
                stored.discard()
                raise
            except FieldLostError:  # where the values were put died before the controller heard of them
                if last_try or not stored.extents:
                    raise
        raise AssertionError("the last try returns or raises")

    def _noting(self, stored: Stored) -> Callable[[int, int], None]:
        return lambda session, sequence: self._unheard.append((session, sequence, stored))

    def _settle_unheard(self) -> Steps[None]:
        """Find out what became of puts whose answer was never heard: the room of those that were not done is free."""
        for _ in range(len(self._unheard)):
            session, sequence, stored = self._unheard.popleft()
            body, waits = wire.GiveUp(sequence), lambda: "asking what became of an earlier put waited"
            try:
                reply, _ = yield Ask(wire.Done, body, (), self._call_timeout_s, waits, after=(session, sequence))
            except BaseException:
                self._unheard.append((session, sequence, stored))
                raise
            if not reply.changed:
                stored.discard()

    def _get_meta(
        self,
        data_fields: Sequence[str],
        batch_size: int,
        global_step: int | None = None,
        task_name: str | None = None,
        get_n_samples: bool = False,
        sampler_params: Mapping[str, Any] | None = None,
        *,
        lease_s: float | None = None,
        timeout_s: float = 300.0,
    ) -> Steps[BatchMeta]:
        """`batch_size` rows that have all of `data_fields` and that `task_name` has not had yet.

        Waits until they are there, at most `timeout_s` (`NotReadyError` says why each missing row is missing;
        `ExhaustedError` at once if they can never be). Without `lease_s` they are consumed at once; with it they are
        this caller's for `lease_s` seconds: `ack` consumes them, `release` or expiry gives them back to the task.
        `global_step=None` draws from every alive partition, oldest first. `get_n_samples=True`: whole groups only.
        `sampler_params`: `dp_rank`, `dp_size`, `dp_group_id`, or what a custom sampler takes.
        """
        asked = _wanted(
            data_fields, batch_size, global_step, task_name, get_n_samples, sampler_params, lease_s, timeout_s
        )
        reply, _ = yield _ask_rows(asked)
        return _meta(asked, reply)

    def _get(
        self,
        data_fields: Sequence[str],
        batch_size: int,
        global_step: int | None = None,
        task_name: str | None = None,
        get_n_samples: bool = False,
        sampler_params: Mapping[str, Any] | None = None,
        *,
        lease_s: float | None = None,
        timeout_s: float = 300.0,
        plain: bool = False,
    ) -> Steps[tuple[BatchMeta, Any]]:
        """`get_meta` and `get_data` in one: the rows and their values, with a lease in one round trip.

        Leased rows whose values cannot be read (`FieldLostError`) go back to the task before the error is raised.
        """
        asked = _wanted(
            data_fields, batch_size, global_step, task_name, get_n_samples, sampler_params, lease_s, timeout_s
        )
        reply, frames = yield _ask_rows(msgspec.structs.replace(asked, values=not self._plane.far))
        meta = _meta(asked, reply)
        try:
            if reply.values is None:  # they were too much for one answer, or this one came a second time
                return meta, (yield from self._get_data(meta, plain=plain))
            loaded = yield from self._plane.load(reply.values, len(meta), frames, False)
            return meta, decode_fields(len(meta), reply.values.columns, loaded, plain=plain)
        except TransferQueueError:
            if meta.lease is not None:
                with contextlib.suppress(TransferQueueError):
                    yield from self._release(meta)
            raise

    def _get_data(
        self, meta: BatchMeta, fields: Iterable[str] | None = None, *, zero_copy: bool = False, plain: bool = False
    ) -> Steps[Any]:
        """The values of these rows, in the order of `meta`: of `meta.fields`, or of `fields`.

        A TensorDict where torch and tensordict are installed, otherwise a dict of NumPy arrays; private to the caller
        and writable. With `zero_copy`, large values that lie one after the other on this machine are mapped instead:
        they must not be written to (the process would die of it), and keep their memory until they are let go.
        With `plain`, a dict of tensors and lists instead of a TensorDict: much cheaper where there are many strings.
        """
        names = list(meta.fields if fields is None else fields)
        body = wire.GetData(meta.global_indexes, names, self._plane.far, meta.task_name)
        maps = zero_copy and self._info.get("storage") == "shm" and not self._plane.far
        values, frames = yield Ask(wire.Values, body, (), self._call_timeout_s, lambda: "get_data waited", maps)
        loaded = yield from self._plane.load(values, len(meta), frames, zero_copy)
        return decode_fields(len(meta), values.columns, loaded, plain=plain)

    def _ack(self, meta: BatchMeta, version: int | None = None) -> Steps[None]:
        """Consume the leased rows; in a DP group this is the rank's vote. A lease that is over is a `LeaseError`.

        `version` is that of the weights which the rows help to make: `rollback` to an earlier one undoes the ack.
        """
        yield self._ask(wire.Done, _ack_of(meta, "ack", version), f"ack of lease {meta.lease}")

    def _release(self, meta: BatchMeta) -> Steps[None]:
        """Give the leased rows back to the task, in order (in a DP group: those of all ranks)."""
        body = wire.Release(_lease_of(meta, "release"))
        yield self._ask(wire.Done, body, f"release of lease {meta.lease}")

    def _extend(self, meta: BatchMeta, lease_s: float) -> Steps[None]:
        """Let the lease live `lease_s` seconds from now. Call it where work makes progress, never from a timer."""
        body = wire.Extend(_lease_of(meta, "extend"), lease_s)
        yield self._ask(wire.Done, body, f"extend of lease {meta.lease}")

    def _drop(self, meta: BatchMeta, reason: str, *, refill: bool = False) -> Steps[None]:
        """Drop the leased rows for this task and every task that has not taken them; `reason` shows in the counts.

        With `refill`, their groups make room in their step for as many new ones.
        """
        body = wire.Drop(_lease_of(meta, "drop"), reason, refill)
        yield self._ask(wire.Done, body, f"drop of lease {meta.lease}")

    def _clear(self, global_step: int, *, force: bool = False) -> Steps[bool]:
        """Free the rows of a step for all tasks; False if it was not alive. Live leases refuse it unless `force`."""
        reply, _ = yield self._ask(wire.Done, wire.Clear(global_step, force), f"clear of step {global_step}")
        return bool(reply.changed)

    def _rollback(self, version: int) -> Steps[wire.Rolled]:
        """Undo the acks that bore a later version: the answer's `rows` (by task) are free again.

        What was cleared since cannot come back and has to be put again: whole `gone_steps`, and `gone_rows` whose
        values were freed because every task had consumed them.
        """
        reply, _ = yield self._ask(wire.Rolled, wire.Rollback(version), f"rollback to version {version}")
        rolled: wire.Rolled = reply
        return rolled

    def _checkpoint(self, path: str | os.PathLike[str], *, timeout_s: float = 300.0) -> Steps[None]:
        """Write the queue as it is now, its values included, to a file that another controller can begin with.

        `TransferQueueController.start(restore=path)` does so. The path is one of the controller's machine, and becomes
        visible when the file is whole; the queue goes on meanwhile. It needs a controller with `journal_dir`.
        """
        body = wire.Checkpoint(str(Path(path).absolute()))
        yield Ask(wire.Done, body, (), timeout_s, lambda: f"the checkpoint {path} was not done")

    def _why(self, task_name: str) -> Steps[Explanation]:
        """Where the task stands and why its request is not served; `str` of it is what `NotReadyError` says."""
        reply, _ = yield self._ask(wire.Explained, wire.Why(task_name), f"why({task_name!r})")
        explanation: Explanation = reply.explanation
        return explanation

    def _stats(self) -> Steps[wire.Stats]:
        """Counts per task, alive partitions, leases and bytes."""
        reply, _ = yield self._ask(wire.Stats, wire.GetStats(), "stats")
        stats: wire.Stats = reply
        return stats

    def _survey(self, task_name: str | None = None) -> Steps[wire.Surveyed]:
        """All counts and, of the same moment, where every task (or this one) stands."""
        reply, _ = yield self._ask(wire.Surveyed, wire.Survey(task_name), "survey")
        surveyed: wire.Surveyed = reply
        return surveyed

    def _peek(self, step: int | None = None, limit: int = 20, fields: Sequence[str] | None = None) -> Steps[Peeked]:
        """The first `limit` rows of a step (None: of all alive), with the beginnings of `fields` (None: of all).

        For a person who looks: it takes nothing, and says of each row which fields it has and where each task stands.
        """
        body = wire.Peek(step, limit, None if fields is None else list(fields))
        reply, _ = yield self._ask(wire.Peeked, body, "peek")
        return readable(reply)

    def _register_sampler(self, task_name: str, sampler: SamplerLike) -> Steps[None]:
        """Let `sampler` serve the task; a `DPSampler` gives this client, and no other, its default DP parameters."""
        body = wire.RegisterSampler(task_name, spec_of(sampler))
        yield self._ask(wire.Done, body, f"register_sampler for {task_name!r}")

    put, async_put = blocking(_put), awaiting(_put)
    get_meta, async_get_meta = blocking(_get_meta), awaiting(_get_meta)
    get, async_get = blocking(_get), awaiting(_get)
    get_data, async_get_data = blocking(_get_data), awaiting(_get_data)
    ack, async_ack = blocking(_ack), awaiting(_ack)
    release, async_release = blocking(_release), awaiting(_release)
    extend, async_extend = blocking(_extend), awaiting(_extend)
    drop, async_drop = blocking(_drop), awaiting(_drop)
    clear, async_clear = blocking(_clear), awaiting(_clear)
    rollback, async_rollback = blocking(_rollback), awaiting(_rollback)
    checkpoint, async_checkpoint = blocking(_checkpoint), awaiting(_checkpoint)
    why, async_why = blocking(_why), awaiting(_why)
    stats, async_stats = blocking(_stats), awaiting(_stats)
    survey, async_survey = blocking(_survey), awaiting(_survey)
    peek, async_peek = blocking(_peek), awaiting(_peek)
    register_sampler, async_register_sampler = blocking(_register_sampler), awaiting(_register_sampler)

    def request(self, expected: type[ReplyT], body: wire.Body, what: str) -> ReplyT:
        """Send one message of `wire` that waits for no rows, and give its reply; `what` names it in errors."""

        def steps() -> Steps[Any]:
            reply, _ = yield self._ask(cast(type[wire.ReplyBody], expected), body, what)
            return reply

        reply: ReplyT = self.carry_out(steps())
        return reply

    def _ask(self, expected: type[wire.ReplyBody], body: wire.Body, what: str) -> Ask:
        return Ask(expected, body, (), self._call_timeout_s, lambda: f"{what} waited")

    def _begin_anew(self) -> None:
        super()._begin_anew()
        self._unheard.clear()
        self._plane = self._make_plane()

    def _make_plane(self) -> Plane:
        storage, folder = self._info.get("storage"), self._info.get("folder")
        if storage == "ray" and "ray" in sys.modules:
            from transfer_queue.storage.ray import plane_in

            return plane_in(str(self._info["namespace"]), self._call_timeout_s)
        if storage != "shm" or not os.access(str(folder), os.W_OK | os.X_OK):
            return MemoryPlane(far=storage is not None)
        from transfer_queue.storage.shm import ShmPlane

        return ShmPlane(Path(str(folder)), self.client_id, self.request, self._tell)


def _wanted(
    data_fields: Sequence[str], batch_size: int, step: int | None, task: str | None, get_n_samples: bool,
    sampler_params: Mapping[str, Any] | None, lease_s: float | None, timeout_s: float,
) -> wire.GetMeta:  # fmt: skip
    if task is None:
        raise ConfigurationError("task_name is missing: rows are consumed once per task, so a consumer names its task")
    if isinstance(data_fields, str):
        raise ConfigurationError(f"data_fields={data_fields!r} is one string: give a list of names")
    check_seconds("timeout_s", timeout_s)
    params = dict(sampler_params) if sampler_params is not None else None
    return wire.GetMeta(task, list(data_fields), batch_size, step, get_n_samples, params, lease_s, timeout_s)


def _ask_rows(asked: wire.GetMeta) -> Ask:
    def waits() -> str:
        where = "any step" if asked.step is None else f"step {asked.step}"
        return f"get_meta waited for {asked.batch_size} rows of {where} for task {asked.task!r}"

    return Ask(wire.Rows, asked, (), asked.timeout_s + GRACE_S, waits)


def _meta(asked: wire.GetMeta, rows: wire.Rows) -> BatchMeta:
    return BatchMeta(rows.indexes, asked.fields, rows.steps, rows.group_ids, asked.task, rows.lease, rows.dp_rank)


def _group_ids(given: object, rows: int) -> list[str | int]:
    """One name per row; the controller says if there are too few or too many."""
    names: list[object] = [given] * rows if isinstance(given, str | int) else []
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        names = list(given)
    if not names or not all(isinstance(name, str | int) and not isinstance(name, bool) for name in names):
        raise GroupError(f"group_id={given!r} is neither a string or whole number nor a list with one per row")
    return [name for name in names if isinstance(name, str | int)]


def _ack_of(meta: BatchMeta | None, what: str, version: int | None = None) -> wire.Ack:
    return wire.Ack(_lease_of(meta, what), meta.dp_rank if meta is not None else None, version)


def _lease_of(meta: BatchMeta | None, what: str) -> int:
    if meta is None or meta.lease is None:
        raise LeaseError(f"{what} needs rows with a lease: get them with get_meta(..., lease_s=60)")
    return meta.lease
