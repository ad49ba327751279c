"""Asks the head of each running stack how its queue stands, every three seconds."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import NamedTuple

import aiohttp
import msgspec

from twinkle_operator.observed import Poll
from twinkle_operator.resources import Key
from twinkle_operator.status_document import MOST_BYTES, decode, unknown
from twinkle_operator.words import REFUSED, STATUS_PORT

EVERY_S = 3.0
DEADLINE_S = 1.0
ADDRESS = f"http://{{cluster}}-head-svc.{{namespace}}.svc:{STATUS_PORT}"
CONNECTIONS = 64


class _Polled(NamedTuple):
    """Of whom the polls are: of one head pod."""

    head: str
    task: asyncio.Task[None]


class Poller:
    """One loop a stack; `changed` is called when an answer says something else than the one before.

    After a good answer one that fails to come is passed over, so that a busy second of a head is no news. A poll
    without an answer keeps the progress of the one before: the last step of a run may not have been written yet.

    `address` is where a head listens, with the fields {cluster}, {namespace}.
    """

    def __init__(self, changed: Callable[[Key], None], now: Callable[[], float], *, address: str = ADDRESS) -> None:
        self._changed, self._now, self._address = changed, now, address
        self._polled: dict[Key, _Polled] = {}
        self._newest: dict[Key, Poll] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Poller:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=DEADLINE_S),
            headers={"Accept-Encoding": "identity"},
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [polled.task for polled in self._polled.values()]
        for key in list(self._polled):
            self.stop(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def poll(self, key: Key, cluster: str, head: str) -> None:
        """Ask the head pod of that uid from now on; nothing changes if it is asked already."""
        polled = self._polled.get(key)
        if polled is not None and polled.head == head:
            return
        self.stop(key)
        url = self._address.format(cluster=cluster, namespace=key[0]) + "/v1/status"
        self._polled[key] = _Polled(head, asyncio.create_task(self._loop(key, url), name=f"poll {'/'.join(key)}"))

    def stop(self, key: Key) -> None:
        """Ask no more, and forget what was said."""
        self._newest.pop(key, None)
        polled = self._polled.pop(key, None)
        if polled is not None:
            polled.task.cancel()

    def newest(self, key: Key) -> Poll | None:
        """Of the head that is asked now; None before its first answer."""
        return self._newest.get(key)

    async def ask(self, url: str) -> Poll:
        """One answer, or why there is none, within a second. Never raises, whatever the server does."""
        assert self._session is not None, "the poller is used outside its `async with`"
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                body = await _body(answer)
        except TimeoutError:
            return unknown(self._now(), "Timeout", f"{url} did not answer within {DEADLINE_S:g} s")
        except aiohttp.ClientConnectorError as error:
            why = REFUSED if isinstance(error.os_error, ConnectionRefusedError) else "Unreachable"
            return unknown(self._now(), why, f"{url} cannot be reached: {error.os_error}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return unknown(self._now(), "Unreachable", f"{url} broke off: {error}")
        if answer.status != 200:
            return unknown(self._now(), "BadAnswer", f"{url} answered with {answer.status}")
        return decode(body, self._now())

    async def _loop(self, key: Key, url: str) -> None:
        await asyncio.sleep(random.random() * EVERY_S / 10)
        missed = False
        while True:
            poll, before = await self.ask(url), self._newest.get(key)
            missed = poll.why not in ("", REFUSED) and before is not None and not before.why and not missed
            if poll.why and before is not None:
                poll = msgspec.structs.replace(poll, progress=before.progress)
            if not missed:
                self._newest[key] = poll
                if before is None or msgspec.structs.replace(poll, at=before.at) != before:
                    self._changed(key)
            await asyncio.sleep(EVERY_S * (0.9 + 0.2 * random.random()))


async def _body(answer: aiohttp.ClientResponse) -> bytes:
    """At most one byte more than is allowed."""
    body = bytearray()
    async for chunk in answer.content.iter_chunked(MOST_BYTES):
        body += chunk[: MOST_BYTES + 1 - len(body)]
        if len(body) > MOST_BYTES:
            answer.close()
            break
    return bytes(body)
