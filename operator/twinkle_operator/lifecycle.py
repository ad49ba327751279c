"""The operator as a whole: lists, watches, passes and polls, put together and kept going until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Collection
from contextlib import suppress

import msgspec

from twinkle_operator import liveness, poller
from twinkle_operator.cache import Cache
from twinkle_operator.client import Client
from twinkle_operator.errors import OperatorError
from twinkle_operator.handlers import Watch
from twinkle_operator.listing import refresh
from twinkle_operator.liveness import Beats
from twinkle_operator.metrics import Metrics
from twinkle_operator.poller import Poller
from twinkle_operator.reconcile import Reconciler
from twinkle_operator.resources import Manifest, Resource
from twinkle_operator.served import Served
from twinkle_operator.settings import Settings
from twinkle_operator.workers import RESYNC_S, Workers

log = logging.getLogger(__name__)

ASK_EVERY_S = 10.0
RELIST_AFTER_S = 2.0
SILENT = 1.3
"""Times the inactivity: kopf has opened a watch anew by then, unless something is wrong with it."""
STOP_S = 8.0
BACKOFF_S, MOST_BACKOFF_S = 0.5, 10.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How one operator runs; times in seconds. No namespaces: the whole cluster."""

    namespaces: tuple[str, ...] = ()
    port: int = 8080
    inactivity: float = 150.0
    resync: float = RESYNC_S
    ask_every: float = ASK_EVERY_S
    status_address: str = poller.ADDRESS
    settings: Settings = Settings()


class Operator:
    """`run` until a signal. Its own event loop decides and writes; kopf's thread hands it what it sees."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._cache = Cache()
        self._metrics = Metrics(self._cache)
        self._beats = Beats(time.monotonic, within=2 * options.inactivity)
        self._why_not_ready = "the cache is not filled yet"
        self._stop, self._anew, self._relist = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._loop: asyncio.AbstractEventLoop

    async def run(self) -> None:
        """Until SIGTERM or SIGINT.

        Raises:
            OperatorError: there is no way to log in.
            OSError: the port is taken.
        """
        self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop.set)
        runner = await liveness.serve(self._options.port, self._beats, lambda: self._why_not_ready, self._metrics)
        try:
            await self._run()
        finally:
            await runner.cleanup()

    async def _run(self) -> None:
        client = Client(count=lambda method: self._metrics.calls.labels(method).inc())
        polls = Poller(lambda key: self._workers.add(key), time.time, address=self._options.status_address)
        async with client, polls:
            self._client, self._served = client, Served(client)
            reconciler = Reconciler(
                client,
                self._cache,
                self._served,
                polls,
                settings=self._options.settings,
                clock=time.monotonic,
                now=time.time,
            )
            self._workers = Workers(reconciler.reconcile, self._metrics, time.monotonic, resync=self._options.resync)
            parts = [self._keep_watching(), self._workers.run(), self._keep_asking(), self._keep_listing()]
            tasks = [asyncio.create_task(part) for part in parts]
            tasks.append(asyncio.create_task(self._stopped()))
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                await _end(tasks)

    async def _stopped(self) -> None:
        await self._stop.wait()

    async def _keep_watching(self) -> None:
        """Fill the cache, watch until that ends or something else is served, and begin again."""
        backoff = BACKOFF_S
        while True:
            try:
                await self._served.ask()
                await self._fill()
                for stack in self._cache.stacks():  # what is served may decide about each of them
                    self._workers.add((stack.namespace, stack.name))
            except OperatorError as error:
                why: object = error
            else:
                started = time.monotonic()
                why = await self._watch()
                if why is None or time.monotonic() - started > MOST_BACKOFF_S:
                    backoff = BACKOFF_S
            if why is not None:
                log.warning("watching begins anew in %.1f s: %s", backoff, why)
                self._why_not_ready = str(why)
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, MOST_BACKOFF_S)

    async def _watch(self) -> BaseException | None:
        """Watch with kopf; why it ended, None if it was to begin anew."""
        ended: asyncio.Future[BaseException | None] = self._loop.create_future()

        def end(why: BaseException | None) -> None:
            self._loop.call_soon_threadsafe(_settle, ended, why)

        watched = self._served.watched
        self._beats.expect({resource.path(each) for resource in watched for each in self._namespaces})
        self._anew.clear()
        watch = Watch(
            watched,
            self._options.namespaces,
            seen=self._seen,
            beats=self._beats,
            inactivity=self._options.inactivity,
            ended=end,
        )
        watch.start()
        anew = asyncio.create_task(self._anew.wait())
        self._why_not_ready = "" if self._served.stacks else "the CustomResourceDefinition of TrainingStack is missing"
        try:
            await asyncio.wait((ended, anew), return_when=asyncio.FIRST_COMPLETED)
            return ended.result() or OperatorError("kopf ended") if ended.done() else None
        finally:
            anew.cancel()
            watch.stop()
            if not ended.done():
                with suppress(TimeoutError):
                    await asyncio.wait_for(asyncio.shield(ended), STOP_S)

    async def _keep_asking(self) -> None:
        """Is KubeRay there, is our own CRD? Watches begin anew when that changes, or when one is silent."""
        while True:
            await asyncio.sleep(self._options.ask_every)
            try:
                if await self._served.ask():
                    log.info("served now: %s", ", ".join(resource.plural for resource in self._served.watched))
                    self._anew.set()
            except OperatorError as error:
                log.warning("the API server was not asked what it serves: %s", error)
            silence = self._beats.hindrance(SILENT * self._options.inactivity)
            if silence:
                log.warning("watching begins anew: %s", silence)
                self._anew.set()

    async def _keep_listing(self) -> None:
        """List again now and then, and soon after kopf had to: in between, deletions may have been missed."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._relist.wait(), self._options.resync)
            await asyncio.sleep(RELIST_AFTER_S)
            self._relist.clear()
            try:
                await self._fill()
            except OperatorError as error:
                log.warning("the lists were not read again: %s", error)

    async def _fill(self) -> None:
        for key in await refresh(self._client, self._cache, self._served.watched, self._namespaces):
            self._workers.add(key)

    @property
    def _namespaces(self) -> tuple[str | None, ...]:
        return self._options.namespaces or (None,)

    def _seen(self, resource: Resource, kind: str | None, raw: Manifest) -> None:
        """An event, in kopf's thread."""
        key = self._cache.gone(resource, raw) if kind == "DELETED" else self._cache.seen(resource, raw)
        if kind is None:
            self._loop.call_soon_threadsafe(self._relist.set)
        if key is not None:
            self._loop.call_soon_threadsafe(self._workers.add, key)


def _settle(future: asyncio.Future[BaseException | None], why: BaseException | None) -> None:
    if not future.done():
        future.set_result(why)


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel until all are done: wait_for of Python 3.11 may swallow a cancellation that comes with its result."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=STOP_S + 1)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # heard, so that asyncio does not complain
