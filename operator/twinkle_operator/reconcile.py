"""One pass over one stack: plan, rehearse, apply, delete, write the status, tell. All of it may be done again."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from twinkle_operator.apply import Applier
from twinkle_operator.cache import Cache
from twinkle_operator.client import Client
from twinkle_operator.errors import Forbidden, NamespaceEnds, NameTaken, NotFound, OperatorError, Refused
from twinkle_operator.observed import Observed, Stack
from twinkle_operator.plan import Plan, plan
from twinkle_operator.poller import EVERY_S, Poller
from twinkle_operator.recorder import Recorder
from twinkle_operator.refusals import Refusals, outdated_schema, refusal
from twinkle_operator.resources import POLICIES, Key, Manifest
from twinkle_operator.served import OLD, Served
from twinkle_operator.settings import Settings
from twinkle_operator.status_writer import StatusWriter
from twinkle_operator.words import HEAD

log = logging.getLogger(__name__)

OVER = frozenset({"Complete", "Failed"})
"""jobDeploymentStatus of a job that does nothing any more."""
SOON_S = 0.01

Send = Callable[[Stack, Manifest], Awaitable[bool]]


class _Stopped(NamedTuple):
    """Why a pass went no further than some child: what the plan has to know, and what to try again."""

    missing: str = ""
    error: OperatorError | None = None


class Reconciler:
    """What a pass needs; it keeps nothing that a new process could not do without."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        served: Served,
        poller: Poller,
        *,
        settings: Settings,
        clock: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._cache, self._served, self._poller = cache, served, poller
        self._settings, self._now = settings, now
        self._refusals = Refusals()
        self._applier = Applier(client, cache)
        self._writer = StatusWriter(client, cache, clock)
        self._recorder = Recorder(client, now)

    async def reconcile(self, key: Key) -> float | None:
        """Bring one stack nearer to its plan; seconds until the next pass (infinite: only news matter), None if gone.

        A pass that changed something asks for another one at once, which finds nothing to do when all is well.

        Raises:
            OperatorError: something failed that may succeed later.
        """
        stack = self._cache.stack(key)
        if stack is None or stack.deleting:
            self._forget(key)
            return None
        self._refusals.retry(stack)
        wanted = self._plan(stack)
        changed, stopped = await self._carry_out(stack, wanted)
        if stopped is not None:
            wanted = self._plan(stack, stopped.missing)
        hold = self._writer.hold(stack, wanted.status)
        if not hold:
            changed |= await self._tell(stack, wanted)
        if stopped is not None and stopped.error is not None:
            raise stopped.error
        # A driver that stops is waited for by the time of its polls, also of those that say nothing new.
        stopping = EVERY_S if wanted.status.stopping_since else None
        return _soonest(SOON_S if changed else None, hold or None, stopping, wanted.resync_after)

    def _plan(self, stack: Stack, missing: str = "") -> Plan:
        poll = self._poller.newest((stack.namespace, stack.name))
        observed = self._cache.observe(stack, poll, self._refusals.of(stack), self._served.missing or missing)
        self._follow(stack, observed)
        return plan(stack, observed, self._now(), self._settings)

    def _follow(self, stack: Stack, observed: Observed) -> None:
        """Poll the head while it is ready, until the status tells that its last job is over."""
        key = stack.namespace, stack.name
        head = next((pod for pod in observed.pods if pod.group == HEAD and pod.ready and not pod.deleting), None)
        told = stack.status.ended >= stack.status.attempts
        over = told and bool(observed.jobs) and all(job.deployment in OVER for job in observed.jobs)
        name = self._cache.cluster_name(stack)
        if head is None or over or not name:
            self._poller.stop(key)
        else:
            self._poller.poll(key, name, f"{head.uid}/{head.restarts}")

    async def _carry_out(self, stack: Stack, wanted: Plan) -> tuple[bool, _Stopped | None]:
        """Rehearse, apply and delete; whether anything was changed, and what stopped it."""
        changed = False
        steps = [(self._applier.rehearse, manifest) for manifest in wanted.rehearsal]
        steps += [(self._applier.apply, manifest) for manifest in wanted.children]
        for send, manifest in steps:
            if self._refusals.final(stack, manifest):
                continue
            sent = await self._send(stack, manifest, send)
            if isinstance(sent, _Stopped):
                return changed, sent
            changed |= sent
        for deletion in wanted.deletions:
            changed |= await self._applier.delete(stack, deletion)
        return changed, None

    async def _send(self, stack: Stack, manifest: Manifest, send: Send) -> bool | _Stopped:
        try:
            return await send(stack, manifest)
        except Refused as error:
            unknown = outdated_schema(manifest, error)
            if unknown:
                return _Stopped(missing=OLD.format(fields=unknown), error=error)
            self._refusals.add(stack, refusal(stack, manifest, error))
            log.warning("%s/%s: %s", stack.namespace, stack.name, error)
            return _Stopped()
        except (Forbidden, NameTaken) as error:
            self._refusals.add(stack, refusal(stack, manifest, error))
            return _Stopped(error=error)
        except NotFound as error:
            if manifest["kind"] == POLICIES.kind:
                raise
            return _Stopped(missing=str(error), error=error)

    async def _tell(self, stack: Stack, wanted: Plan) -> bool:
        """Write the status and then the events; whether the status was written."""
        written = await self._writer.write(stack, wanted.status)
        for event in wanted.events if written else ():
            try:
                await self._recorder.record(stack, event)
            except OperatorError as error:
                level = logging.DEBUG if isinstance(error, NamespaceEnds) else logging.WARNING
                said = "event %s of %s/%s was not written: %s"
                log.log(level, said, event.reason, stack.namespace, stack.name, error)
        return written

    def _forget(self, key: Key) -> None:
        self._poller.stop(key)
        for book in (self._refusals, self._applier, self._writer):
            book.forget(key)


def _soonest(*delays: float | None) -> float:
    return min((delay for delay in delays if delay is not None), default=math.inf)
