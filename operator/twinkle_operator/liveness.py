"""Is the operator still hearing from the API server? Each event, bookmark, page of a list and end of a watch is a beat.

Bookmarks alone would not do: there are none of events, and an API server whose etcd reports no progress sends none of a
kind of which nothing happened since it started. But each watch is asked to last for less than the inactivity timeout,
and its end is the server's word, too; a connection that breaks is not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import prometheus_client
from aiohttp import web

from twinkle_operator.metrics import Metrics


class Beats:
    """When each watch, by its path, last brought something; on a clock that never goes back."""

    def __init__(self, clock: Callable[[], float], *, within: float) -> None:
        self._clock, self._within = clock, within
        self._last: dict[str, float] = {}
        self._start = clock()

    def beat(self, path: str) -> None:
        """Something came; of a path that is not expected it says nothing."""
        if path in self._last:
            self._last[path] = self._clock()

    def expect(self, paths: set[str]) -> None:
        """Only these are watched from now on; what is new among them counts from now."""
        now = self._clock()
        self._last = {path: self._last.get(path, now) for path in paths}

    def hindrance(self, within: float | None = None) -> str:
        """Which watch has been silent for too long; empty if none has. Before the first watch, the start counts."""
        now, within = self._clock(), self._within if within is None else within
        quiet = [(now - last, path) for path, last in self._last.items()] or [(now - self._start, "anything")]
        longest, path = max(quiet)
        return f"nothing came of {path} for {longest:.0f} s" if longest > within else ""


def answers(beats: Beats) -> type[aiohttp.ClientResponse]:
    """A class of responses that beat whenever something of them is read."""

    class Beating(aiohttp.ClientResponse):
        async def start(self, connection: Any) -> aiohttp.ClientResponse:
            response = await super().start(connection)
            if response.status == 200:
                self.content = _Beating(self.content, lambda: beats.beat(self.url.path))  # type: ignore[assignment]
            return response

    return Beating


class _Beating:
    """A stream that tells of each piece that is read; kopf reads watches in pieces and everything else as a whole."""

    def __init__(self, stream: aiohttp.StreamReader, beat: Callable[[], None]) -> None:
        self._stream, self._beat = stream, beat

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def read(self, n: int = -1) -> bytes:
        piece = await self._stream.read(n)
        self._beat()
        return piece

    async def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        async for piece in self._stream.iter_chunked(n):
            self._beat()
            yield piece
        self._beat()


async def serve(port: int, beats: Beats, ready: Callable[[], str], metrics: Metrics) -> web.AppRunner:
    """/healthz, /readyz and /metrics on that port, until the runner is cleaned up."""

    def say(why: str) -> web.Response:
        return web.Response(text=(why or "ok") + "\n", status=503 if why else 200)

    async def healthz(_: web.Request) -> web.Response:
        return say(beats.hindrance())

    async def readyz(_: web.Request) -> web.Response:
        return say(ready())

    async def numbers(_: web.Request) -> web.Response:
        text = prometheus_client.generate_latest(metrics.registry)
        return web.Response(body=text, headers={"Content-Type": prometheus_client.CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", numbers)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
