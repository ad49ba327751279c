"""Events about a stack, for `kubectl describe`; one that repeats is counted, not written again."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime

from twinkle_operator.client import MERGE, Client
from twinkle_operator.errors import Conflict, NotFound
from twinkle_operator.events import Event
from twinkle_operator.observed import Stack
from twinkle_operator.resources import EVENTS, Manifest
from twinkle_operator.words import API_VERSION, FIELD_MANAGER, KIND

MOST = 4096
"""Events whose count is remembered."""
TEXT = 1024
"""Characters that the API server takes as a message."""


class Recorder:
    """Writes events under names made from what they say, so that nothing is said twice however often it is sent."""

    def __init__(self, client: Client, now: Callable[[], float]) -> None:
        self._client, self._now = client, now
        self._counts: OrderedDict[str, int] = OrderedDict()

    async def record(self, stack: Stack, event: Event) -> None:
        """Write one event, or count it once more.

        Raises:
            ApiError, Unreachable: it was not written; what it says is in the status anyway.
        """
        name = event_name(stack, event)
        at = datetime.fromtimestamp(self._now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        if name not in self._counts:
            try:
                await self._client.call("POST", EVENTS.path(stack.namespace), _manifest(stack, event, name, at))
                return self._count(name, 1)
            except Conflict:
                self._counts[name] = 1  # of an earlier life of the operator
        count = self._counts[name] + 1
        try:
            body = {"count": count, "lastTimestamp": at}
            await self._client.call("PATCH", EVENTS.path(stack.namespace, name), body, content=MERGE)
            self._count(name, count)
        except NotFound:
            self._counts.pop(name, None)  # Kubernetes forgets events after an hour
            await self.record(stack, event)
        return None

    def _count(self, name: str, count: int) -> None:
        self._counts[name] = count
        self._counts.move_to_end(name)
        if len(self._counts) > MOST:
            self._counts.popitem(last=False)


def event_name(stack: Stack, event: Event) -> str:
    """The stack's name, the place, and a digest of what is said: kubectl sorts by name within a second."""
    attempt, part = event.place
    said = "\0".join((stack.uid, event.type, event.reason, event.message))
    return f"{stack.name}.{attempt:06x}{part}{hashlib.blake2b(said.encode(), digest_size=8).hexdigest()}"


def _manifest(stack: Stack, event: Event, name: str, at: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": stack.namespace},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": stack.name,
            "namespace": stack.namespace,
            "uid": stack.uid,
            "resourceVersion": stack.resource_version,
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:TEXT],
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "reportingInstance": FIELD_MANAGER,
    }
