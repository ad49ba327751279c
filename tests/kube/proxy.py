"""An HTTP proxy between the operator and the API server that counts calls and does to them what a test asks for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import aiohttp
from aiohttp import web

from twinkle_operator import login

WRITES = ("POST", "PATCH", "PUT", "DELETE")
PASSED = ("Content-Type", "Accept", "User-Agent")
STARTS_WITHIN_S = 10


@dataclass
class Call:
    """One request: its number among all, and what it asks; `created` once the server answered 201."""

    number: int
    method: str
    path: str
    query: dict[str, str]
    created: bool = False

    @property
    def is_watch(self) -> bool:
        return "watch" in self.query

    @property
    def is_write(self) -> bool:
        return self.method in WRITES and self.query.get("dryRun") != "All"


class Answer(NamedTuple):
    """What the proxy says itself, instead of asking the API server."""

    status: int
    text: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Then(NamedTuple):
    """Let the API server do it, call this, and drop the connection before the answer."""

    do: Callable[[], None]


DROP = "drop"
Fault = Callable[[Call], Answer | Then | str | None]


class Proxy:
    """Forwards to the API server as whom the kubeconfig names; `kubeconfig` is a file that leads here.

    `fault` decides about each call: None forwards it. `calls` are all calls so far.
    """

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        with mock.patch.dict(os.environ, KUBECONFIG=str(kubeconfig)):
            self._upstream = login.connection()
        self.fault: Fault = lambda call: None
        self.calls: list[Call] = []
        self._streams: set[web.StreamResponse] = set()
        self._silenced: set[web.StreamResponse] = set()
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Proxy:
        self._thread.start()
        assert self._ready.wait(STARTS_WITHIN_S), "the proxy did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    @property
    def kubeconfig(self) -> Path:
        file = self._folder / f"proxy-{self.port}.kubeconfig"
        file.write_text(
            "{apiVersion: v1, kind: Config, current-context: it, "
            "contexts: [{name: it, context: {cluster: it, user: it}}], users: [{name: it, user: {}}], "
            f"clusters: [{{name: it, cluster: {{server: 'http://127.0.0.1:{self.port}'}}}}]}}"
        )
        return file

    @property
    def watches(self) -> int:
        """How many are open."""
        return len(self._streams)

    def writes(self) -> list[Call]:
        """Calls that change something."""
        return [call for call in self.calls if call.is_write]

    def cut(self) -> None:
        """Break all watches that are open."""

        def close() -> None:
            for task in list(self._watches):
                task.cancel()

        self._loop.call_soon_threadsafe(close)

    def silence(self) -> None:
        """From now on nothing comes through the watches that are open; their connections stay."""
        self._silenced |= self._streams

    def say(self, line: bytes) -> None:
        """Put a line of our own into every watch that is open."""

        async def write() -> None:
            for stream in list(self._streams):
                await stream.write(line)

        asyncio.run_coroutine_threadsafe(write(), self._loop).result(STARTS_WITHIN_S)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        self._watches: set[asyncio.Task[None]] = set()
        async with login.session(self._upstream, connections=0) as self._session:
            app = web.Application(client_max_size=1 << 24)
            app.router.add_route("*", "/{path:.*}", self._handle)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port: int = runner.addresses[0][1]
            self._ready.set()
            await self._ended.wait()
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        call = Call(len(self.calls), request.method, request.path, dict(request.query))
        self.calls.append(call)
        fault = self.fault(call)
        if isinstance(fault, Answer):
            return web.Response(status=fault.status, text=fault.text, headers=dict(fault.headers))
        if fault == DROP:
            return self._drop(request)
        headers = {name: request.headers[name] for name in PASSED if name in request.headers}
        url = self._upstream.server + request.path_qs
        try:
            async with self._session.request(
                request.method,
                url,
                data=await request.read() or None,
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                if call.is_watch and answer.status == 200:
                    return await self._stream(request, answer)
                text = await answer.read()
                call.created = answer.status == 201
        except aiohttp.ClientError:
            return self._drop(request)  # as if the API server were reached directly
        if isinstance(fault, Then):
            fault.do()
            return self._drop(request)
        return web.Response(status=answer.status, body=text, headers={"Content-Type": answer.headers["Content-Type"]})

    async def _stream(self, request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        task = asyncio.create_task(self._copy(answer, stream))
        self._watches.add(task)
        self._streams.add(stream)
        try:
            await task
        except asyncio.CancelledError:
            if request.transport is not None:
                request.transport.abort()
        finally:
            task.cancel()
            self._watches.discard(task)
            self._streams.discard(stream)
        return stream

    async def _copy(self, answer: aiohttp.ClientResponse, stream: web.StreamResponse) -> None:
        with contextlib.suppress(aiohttp.ClientError):
            async for line in answer.content.iter_any():
                if stream not in self._silenced:
                    await stream.write(line)
            if stream in self._silenced:
                await self._ended.wait()

    @staticmethod
    def _drop(request: web.Request) -> web.Response:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


@contextlib.contextmanager
def faulty(proxy: Proxy, fault: Fault) -> Iterator[None]:
    """That fault for a while."""
    before, proxy.fault = proxy.fault, fault
    try:
        yield
    finally:
        proxy.fault = before
