"""The status of a stack, written when it changed; what a poll changed, at most every five seconds."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from twinkle_operator.cache import Cache
from twinkle_operator.client import Client
from twinkle_operator.errors import Conflict, OperatorError, Outdated, Refused
from twinkle_operator.observed import Stack
from twinkle_operator.resources import STACKS, Key
from twinkle_operator.state import Status
from twinkle_operator.words import API_VERSION, KIND

POLLED_EVERY_S = 5.0
OLD_CRD = "the CustomResourceDefinition of TrainingStack is not that of this operator: apply the one of its chart"
POLLED = "QueueReady"
"""The condition that follows the polls."""


class StatusWriter:
    """Writes with the resourceVersion that the plan saw, so that of two operators only one says what happened."""

    def __init__(self, client: Client, cache: Cache, clock: Callable[[], float]) -> None:
        self._client, self._cache, self._clock = client, cache, clock
        self._written: dict[Key, float] = {}

    def hold(self, stack: Stack, status: Status) -> float:
        """Seconds for which the status should not be written yet; 0 to write it now, or if nothing changed."""
        written = self._written.get((stack.namespace, stack.name))
        if written is None or status == stack.status or not only_polled(stack.status, status):
            return 0.0
        return max(0.0, written + POLLED_EVERY_S - self._clock())

    async def write(self, stack: Stack, status: Status) -> bool:
        """Write it if it differs from the stack's; whether it was written.

        Raises:
            Outdated: somebody changed the stack since the plan saw it; the cache knows it now.
            OperatorError: the CRD is another version's.
            ApiError, Unreachable: anything else.
        """
        if status == stack.status:
            return False
        key = stack.namespace, stack.name
        manifest = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": stack.name,
                "namespace": stack.namespace,
                "uid": stack.uid,
                "resourceVersion": stack.resource_version,
            },
            "status": msgspec.to_builtins(status),
        }
        try:
            live = await self._client.apply(STACKS, manifest, force=True, subresource="status")
        except Conflict as error:
            self._cache.seen(STACKS, await self._client.get(STACKS, *key))
            raise Outdated(f"the status of {'/'.join(key)} was not written: {error.message}") from error
        except Refused as error:
            raise OperatorError(f"{OLD_CRD}: {error.message}") from error
        self._written[key] = self._clock()
        self._cache.seen(STACKS, live)
        return True

    def forget(self, key: Key) -> None:
        """The stack is no more."""
        self._written.pop(key, None)


def only_polled(before: Status, after: Status) -> bool:
    """Whether nothing differs but what the polls say."""
    return _without_polled(before) == _without_polled(after)


def _without_polled(status: Status) -> Status:
    others = [each for each in status.conditions if each.type != POLLED]
    return msgspec.structs.replace(status, conditions=others, queue=None, progress=None)
