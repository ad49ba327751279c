"""`TransferQueueClient`: put rows, get rows, acknowledge them; every call has a deadline."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import zmq

from transfer_queue import wire
from transfer_queue.columns import decode_fields, encode_fields
from transfer_queue.connection import Connection
from transfer_queue.errors import ConfigurationError, GroupError, LeaseError, ProtocolError, rebuild
from transfer_queue.ledger.explain import Explanation
from transfer_queue.ledger.request import check_seconds
from transfer_queue.meta import BatchMeta
from transfer_queue.peeking import Peeked, readable
from transfer_queue.samplers.travel import SamplerLike, spec_of

if TYPE_CHECKING:
    from collections.abc import Iterable

GRACE_S = 5.0
"""How much longer than the controller the client waits: the controller's own error says more."""

ReplyT = TypeVar("ReplyT", bound=wire.ReplyBody)


class TransferQueueClient:
    """A producer or consumer of one queue. May be shared by threads, and used in a forked child.

    `client_id` names it in leases and messages; `controller_info` is what `controller.get_info()` gave.
    `call_timeout_s` bounds the calls that never wait for rows.
    """

    def __init__(self, client_id: str, controller_info: Mapping[str, Any], *, call_timeout_s: float = 60.0) -> None:
        name: object = client_id
        info: object = controller_info
        if not isinstance(name, str) or not name:
            raise ConfigurationError(f"client_id must be a name, not {client_id!r}")
        endpoint = info.get("endpoint") if isinstance(info, Mapping) else None
        if not isinstance(endpoint, str):
            raise ConfigurationError(
                f"controller_info={controller_info!r} is not what controller.get_info() returns (with Ray: "
                "ray.get(controller.get_info.remote()))"
            )
        self.client_id = client_id
        self._endpoint = endpoint
        self._call_timeout_s = call_timeout_s
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._of_parent: list[Connection] = []
        self._pid = os.getpid()
        self._closed = False
        weakref.finalize(self, _close_all, self._idle)  # a client that nobody closed must not leave sockets open

    def __enter__(self) -> TransferQueueClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; may be called twice. Leases stay until they are over."""
        with self._lock:
            self._closed = True
            _close_all(self._idle)

    def put(
        self,
        data: Mapping[str, Any],
        metadata: BatchMeta | None = None,
        global_step: int | None = None,
        *,
        group_id: str | int | Sequence[str | int] | None = None,
        timeout_s: float = 300.0,
    ) -> BatchMeta:
        """New rows with these fields, or with `metadata` more fields of its rows.

        A field is a tensor or array with one row first, a list of tensors or arrays of any shapes, or a list of
        strings, bytes or JSON-like values.

        New rows go to `global_step`, or without one to the oldest partition with room. They form groups of
        `num_n_samples` in order, unless `group_id` (one for all rows, or one per row) says which prompt each belongs
        to. While `num_global_batch` partitions are alive, a put that needs another waits, at most `timeout_s`
        (`BackPressureError`). Rows under a lease may be written only while it lives (`LeaseError`).
        """
        if metadata is not None and (global_step is not None or group_id is not None):
            raise GroupError("put with metadata adds fields to rows that exist: global_step and group_id do not apply")
        check_seconds("timeout_s", timeout_s)
        rows, columns, frames = encode_fields(data)
        if group_id is not None:
            group_id = _group_ids(group_id, rows)
        known = (metadata.global_indexes, metadata.lease) if metadata is not None else ([], None)
        body = wire.Put(rows, columns, *known, global_step, group_id, timeout_s)
        reply, _ = self._call(
            wire.Rows, body, wire.joined(frames), timeout_s + GRACE_S, lambda: f"put of {rows} rows waited for room"
        )
        names = [column.name for column in columns]
        if metadata is not None:
            return metadata.with_fields(names)
        return BatchMeta(reply.indexes, names, reply.steps, reply.group_ids)

    def get_meta(
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
    ) -> BatchMeta:
        """`batch_size` rows that have all of `data_fields` and that `task_name` has not had yet.

        Waits until they are there, at most `timeout_s` (`NotReadyError` says why each missing row is missing;
        `ExhaustedError` at once if they can never be). Without `lease_s` they are consumed at once; with it they are
        this caller's for `lease_s` seconds: `ack` consumes them, `release` or expiry gives them back to the task.
        `global_step=None` draws from every alive partition, oldest first. `get_n_samples=True`: whole groups only.
        `sampler_params`: `dp_rank`, `dp_size`, `dp_group_id`, or what a custom sampler takes.
        """
        if task_name is None:
            raise ConfigurationError(
                "task_name is missing: rows are consumed once per task, so a consumer names its task"
            )
        fields, params = list(data_fields), dict(sampler_params) if sampler_params is not None else None
        if isinstance(data_fields, str):
            raise ConfigurationError(f"data_fields={data_fields!r} is one string: give a list of names")
        check_seconds("timeout_s", timeout_s)
        body = wire.GetMeta(task_name, fields, batch_size, global_step, get_n_samples, params, lease_s, timeout_s)
        where = "any step" if global_step is None else f"step {global_step}"
        reply, _ = self._call(
            wire.Rows,
            body,
            (),
            timeout_s + GRACE_S,
            lambda: f"get_meta waited for {batch_size} rows of {where} for task {task_name!r}",
        )
        return BatchMeta(reply.indexes, fields, reply.steps, reply.group_ids, task_name, reply.lease, reply.dp_rank)

    def get_data(self, meta: BatchMeta, fields: Iterable[str] | None = None) -> Any:
        """The values of these rows, in the order of `meta`: of `meta.fields`, or of `fields`.

        A TensorDict where torch and tensordict are installed, otherwise a dict of NumPy arrays.
        """
        body = wire.GetData(meta.global_indexes, list(meta.fields if fields is None else fields))
        reply, values = self._call(wire.Values, body, (), self._call_timeout_s, lambda: "get_data waited for values")
        return decode_fields(len(meta), reply.columns, wire.separate(len(meta), reply.columns, values))

    def ack(self, meta: BatchMeta) -> None:
        """Consume the leased rows; in a DP group this is the rank's vote. A lease that is over is a `LeaseError`."""
        body = wire.Ack(_lease_of(meta, "ack"), meta.dp_rank)
        self.request(wire.Done, body, f"ack of lease {meta.lease}")

    def release(self, meta: BatchMeta) -> None:
        """Give the leased rows back to the task, in order (in a DP group: those of all ranks)."""
        body = wire.Release(_lease_of(meta, "release"))
        self.request(wire.Done, body, f"release of lease {meta.lease}")

    def extend(self, meta: BatchMeta, lease_s: float) -> None:
        """Let the lease live `lease_s` seconds from now. Call it where work makes progress, never from a timer."""
        body = wire.Extend(_lease_of(meta, "extend"), lease_s)
        self.request(wire.Done, body, f"extend of lease {meta.lease}")

    def drop(self, meta: BatchMeta, reason: str) -> None:
        """Drop the leased rows for this task and every task that has not taken them; `reason` shows in the counts."""
        body = wire.Drop(_lease_of(meta, "drop"), reason)
        self.request(wire.Done, body, f"drop of lease {meta.lease}")

    def clear(self, global_step: int, *, force: bool = False) -> bool:
        """Free the rows of a step for all tasks; False if it was not alive. Live leases refuse it unless `force`."""
        body = wire.Clear(global_step, force)
        return self.request(wire.Done, body, f"clear of step {global_step}").changed

    def why(self, task_name: str) -> Explanation:
        """Where the task stands and why its request is not served; `str` of it is what `NotReadyError` says."""
        return self.request(wire.Explained, wire.Why(task_name), f"why({task_name!r})").explanation

    def stats(self) -> wire.Stats:
        """Counts per task, alive partitions, leases and bytes."""
        return self.request(wire.Stats, wire.GetStats(), "stats")

    def survey(self, task_name: str | None = None) -> wire.Surveyed:
        """All counts and, of the same moment, where every task (or this one) stands."""
        return self.request(wire.Surveyed, wire.Survey(task_name), "survey")

    def peek(self, step: int | None = None, limit: int = 20, fields: Sequence[str] | None = None) -> Peeked:
        """The first `limit` rows of a step (None: of all alive), with the beginnings of `fields` (None: of all).

        For a person who looks: it takes nothing, and says of each row which fields it has and where each task stands.
        """
        body = wire.Peek(step, limit, None if fields is None else list(fields))
        return readable(self.request(wire.Peeked, body, "peek"))

    def register_sampler(self, task_name: str, sampler: SamplerLike) -> None:
        """Let `sampler` serve the task; a `DPSampler` gives this client, and no other, its default DP parameters."""
        body = wire.RegisterSampler(task_name, spec_of(sampler))
        self.request(wire.Done, body, f"register_sampler for {task_name!r}")

    def request(self, expected: type[ReplyT], body: wire.Body, what: str) -> ReplyT:
        """Send one message of `wire` that waits for no rows, and give its reply; `what` names it in errors."""
        return self._call(expected, body, (), self._call_timeout_s, lambda: f"{what} waited")[0]

    def _call(
        self, expected: type[ReplyT], body: wire.Body, frames: Sequence[Any], timeout_s: float, waits: Callable[[], str]
    ) -> tuple[ReplyT, list[bytes]]:
        connection = self._take()
        try:
            reply, values = connection.call(self.client_id, body, frames, timeout_s, waits)
        except BaseException:
            connection.close()  # a late reply to this request must never be taken for the reply to another
            raise
        self._give_back(connection)
        if isinstance(reply, wire.Failure):
            raise rebuild(reply.name, reply.message, reply.details)
        if not isinstance(reply, expected):
            raise ProtocolError(f"the controller answered {type(body).__name__} with {type(reply).__name__}")
        return reply, values

    def _take(self) -> Connection:
        if self._pid != os.getpid():  # in a forked child the lock may be held for ever, and sockets are the parent's
            self._pid, self._lock = os.getpid(), threading.Lock()
            self._of_parent = list(self._idle)
            self._idle.clear()
        with self._lock:
            if self._closed:
                raise ConfigurationError(f"client {self.client_id!r} is closed: make a new TransferQueueClient")
            if self._idle:
                return self._idle.pop()
        return Connection(zmq.Context.instance(), self._endpoint)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


def _group_ids(given: object, rows: int) -> list[str | int]:
    """One name per row; the controller says if there are too few or too many."""
    names: list[object] = [given] * rows if isinstance(given, str | int) else []
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        names = list(given)
    if not names or not all(isinstance(name, str | int) and not isinstance(name, bool) for name in names):
        raise GroupError(f"group_id={given!r} is neither a string or whole number nor a list with one per row")
    return [name for name in names if isinstance(name, str | int)]


def _close_all(connections: list[Connection]) -> None:
    while connections:
        connections.pop().close()


def _lease_of(meta: BatchMeta, what: str) -> int:
    if meta.lease is None:
        raise LeaseError(f"{what} needs rows with a lease: get them with get_meta(..., lease_s=60)")
    return meta.lease
