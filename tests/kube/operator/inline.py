"""The operator without its process: lists and passes here, so that it can die at every call and clocks can jump."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from tests.kube.kuberay import KubeRay
from twinkle_operator.cache import Cache
from twinkle_operator.client import Client, Method, Query
from twinkle_operator.errors import OperatorError
from twinkle_operator.listing import refresh
from twinkle_operator.observed import Poll
from twinkle_operator.poller import Poller
from twinkle_operator.reconcile import SOON_S, Reconciler
from twinkle_operator.resources import Key, Manifest
from twinkle_operator.served import Served
from twinkle_operator.settings import Settings
from twinkle_operator.words import REFUSED

MOST_PASSES = 50
WRITES = ("POST", "PATCH", "DELETE")


class Killed(BaseException):
    """The process is no more."""


class MortalClient(Client):
    """Dies at its n-th call: before the server hears of it, or (`after`) before it hears the answer."""

    def __init__(self, dies_at: int | None, *, after: bool) -> None:
        super().__init__()
        self.calls: list[tuple[str, str]] = []
        self._dies_at, self._after = dies_at, after

    async def text(
        self, method: Method, path: str, body: Manifest | None = None, *, query: Query | None = None, content: str = ""
    ) -> bytes:
        self.calls.append((method, path))
        dies = self._dies_at is not None and len(self.calls) > self._dies_at
        if dies and not self._after:
            raise Killed
        answer = await super().text(method, path, body, query=query, content=content)
        if dies:
            raise Killed
        return answer


class NoDriver(Poller):
    """On every head nothing listens."""

    def poll(self, key: Key, cluster: str, head: str) -> None:
        pass

    def newest(self, key: Key) -> Poll | None:
        return Poll(at=time.time() + 60, why=REFUSED, message="nothing listens")


def live(
    kubeconfig: Path, key: Key, *, dies_at: int | None = None, after: bool = False, now: Callable[[], float] = time.time
) -> tuple[bool, list[tuple[str, str]]]:
    """Lists and passes until a pass changes nothing; whether it lived until then, and its calls."""

    async def life() -> tuple[bool, list[tuple[str, str]]]:
        async with MortalClient(dies_at, after=after) as client:
            try:
                await _settle(client, key, now)
            except Killed:
                return False, client.calls
            return True, client.calls

    with mock.patch.dict(os.environ, KUBECONFIG=str(kubeconfig)):
        return asyncio.run(life())


async def _settle(client: Client, key: Key, now: Callable[[], float]) -> None:
    cache, served = Cache(), Served(client)
    async with NoDriver(lambda _: None, now) as poller:
        reconciler = Reconciler(client, cache, served, poller, settings=Settings(), clock=time.monotonic, now=now)
        await served.ask()
        for _ in range(MOST_PASSES):
            await refresh(client, cache, served.watched, [key[0]])
            try:
                again = await reconciler.reconcile(key)
            except OperatorError:
                continue
            if again is None or again > SOON_S:
                return
    raise AssertionError(f"{MOST_PASSES} passes did not settle {'/'.join(key)}")


def children(kuberay: KubeRay, namespace: str) -> dict[str, list[str]]:
    """Names of the children in a namespace, by kind."""
    kinds = ("RayCluster", "RayJob", "NetworkPolicy")
    return {kind: [each["metadata"]["name"] for each in kuberay.list(kind, namespace)] for kind in kinds}
