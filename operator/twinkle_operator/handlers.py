"""kopf, which only watches: each event goes to one function, and nothing is written, kept on an object or retried.

It runs in a thread and an event loop of its own, because it ends every task of its loop when it stops, and it stops at
what it cannot mend: an error in a watch, a kind that is gone, rights that are missing. Then it is started anew.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from typing import Any, cast

import kopf

from twinkle_operator import liveness, login
from twinkle_operator.liveness import Beats
from twinkle_operator.resources import Manifest, Resource

CHUNK = 100
IDLE_S = 0.2
"""Seconds for which kopf keeps a task for an object of which nothing more comes."""
IDENTITY = cast(Any, "twinkle-operator")
"""Would name us to other operators of kopf's; left out, kopf asks who the user is, and a container's has no name."""
REQUEST_S = 30.0
BACKOFFS = (0.5, 1.0, 2.0, 4.0)

WATCHER = "watcher for "
"""How kopf names the task that watches one kind."""

Seen = Callable[[Resource, str | None, Manifest], None]
"""Called in kopf's thread with the kind, the type of the event (None: listed) and the object."""


class NothingKept(kopf.DiffBaseStorage):
    """kopf copies each object to tell later what changed of it; handlers of events never ask."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> Any:
        return None

    def store(self, **_: Any) -> None:
        return None


class Watch:
    """kopf's operator over these kinds and namespaces (none: the whole cluster), from `start` until `stop`.

    `ended` is called in kopf's thread with why it stopped, None if it was told to.
    """

    def __init__(
        self,
        resources: Collection[Resource],
        namespaces: Collection[str],
        *,
        seen: Seen,
        beats: Beats,
        inactivity: float,
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._resources, self._namespaces, self._ended = resources, namespaces, ended
        self._stop: Future[None] = Future()
        self._error: BaseException | None = None
        self._settings = settings(resources, inactivity)
        self._registry = registry(resources, seen, beats)
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End within some seconds; `ended` is called then."""
        if not self._stop.done():
            self._stop.set_result(None)

    def _run(self) -> None:
        try:
            asyncio.run(self._operate())
        except BaseException as error:  # noqa: BLE001 (whatever it is, the operator says it and starts kopf anew)
            self._ended(error)
        else:
            self._ended(self._error)

    async def _operate(self) -> None:
        asyncio.get_running_loop().set_task_factory(self._task)
        await kopf.operator(
            registry=self._registry,
            settings=self._settings,
            identity=IDENTITY,
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            stop_flag=self._stop,
        )

    def _task(self, loop: asyncio.AbstractEventLoop, work: Any, **given: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **given)
        task.add_done_callback(self._notice)
        return task

    def _notice(self, task: asyncio.Task[Any]) -> None:
        """kopf lives on, deaf, when the task that watches a kind dies of an error."""
        if not task.cancelled() and task.get_name().startswith(WATCHER):
            error = task.exception()
            if error is not None:
                self._error = self._error or error
                self.stop()


def settings(resources: Iterable[Resource], inactivity: float) -> kopf.OperatorSettings:
    """kopf's settings: watch what our selectors name; scan, post and keep nothing."""
    made = kopf.OperatorSettings()
    made.posting.enabled = False
    made.scanning.disabled = True
    made.persistence.diffbase_storage = NothingKept()
    made.process.ultimate_exiting_timeout = None
    made.queueing.idle_timeout = IDLE_S
    made.networking.request_timeout = REQUEST_S
    made.networking.error_backoffs = BACKOFFS
    made.watching.chunk_size = CHUNK
    made.watching.inactivity_timeout = inactivity
    # The server ends a watch before it counts as silent, so that a quiet cluster is heard, too.
    made.watching.server_timeout = int(inactivity * 0.9)
    for resource in resources:
        if resource.labels:
            made.watching.label_selectors[resource.group, resource.version, resource.plural] = resource.labels
        if resource.fields:
            made.watching.field_selectors[resource.group, resource.version, resource.plural] = resource.fields
    return made


def registry(resources: Iterable[Resource], seen: Seen, beats: Beats) -> kopf.OperatorRegistry:
    """One handler for all events of each kind, and how to log in."""
    made = kopf.OperatorRegistry()

    @kopf.on.login(registry=made)
    async def _log_in(**_: Any) -> kopf.AiohttpSession:
        info = login.connection()
        session = login.session(info, connections=0, answers=liveness.answers(beats))
        return kopf.AiohttpSession(server=info.server, aiohttp_session=session)

    for resource in resources:
        _handle(made, resource, seen)
    return made


def _handle(made: kopf.OperatorRegistry, resource: Resource, seen: Seen) -> None:
    @kopf.on.event(resource.group, resource.version, resource.plural, registry=made, id=resource.plural)
    async def _event(event: Any, **_: Any) -> None:
        seen(resource, event["type"], event["object"])


def quiet() -> None:
    """Let kopf say only what goes wrong, and not twice: that a watch died is said when watching begins anew."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    for name in ("running", "orchestration"):
        logging.getLogger(f"kopf._core.reactor.{name}").setLevel(logging.CRITICAL)
