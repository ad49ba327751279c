"""The calls that the operator makes to the API server, each with a deadline, each error typed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any, Literal

import aiohttp
import msgspec

from twinkle_operator import login
from twinkle_operator.errors import Unauthorized, Unreachable, api_error
from twinkle_operator.resources import Manifest, Resource
from twinkle_operator.words import FIELD_MANAGER

DEADLINE_S = 20.0
CONNECTIONS = 8
CHUNK = 100
"""Objects of one answer of a list."""

JSON, APPLY, MERGE = "application/json", "application/apply-patch+yaml", "application/merge-patch+json"
Method = Literal["GET", "POST", "PATCH", "DELETE"]
Query = Mapping[str, str]


class Client:
    """A session with the API server; logs in again, once a call, when it is answered 401.

    `count` is told the method of every call.
    """

    def __init__(self, *, deadline: float = DEADLINE_S, count: Callable[[str], None] = lambda _: None) -> None:
        self._count = count
        self._timeout = aiohttp.ClientTimeout(total=deadline, sock_connect=5)
        self._server = ""
        self._session: aiohttp.ClientSession | None = None
        self._earlier: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Client:
        self._log_in()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for session in (self._session, self._earlier):
            if session is not None:
                await session.close()

    async def get(self, resource: Resource, namespace: str, name: str) -> Manifest:
        """One object.

        Raises:
            ApiError, Unreachable: as for every call.
        """
        return await self.call("GET", resource.path(namespace, name))

    async def list(self, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[Manifest], str]]:
        """All objects that the resource selects, in chunks with the resourceVersion of the list.

        Raises:
            Gone: the list grew too old between two chunks.
        """
        query = {"limit": str(CHUNK), "labelSelector": resource.labels, "fieldSelector": resource.fields}
        query = {name: value for name, value in query.items() if value}
        while True:
            answer = await self.call("GET", resource.path(namespace), query=query)
            about = answer.get("metadata", {})
            yield answer.get("items") or [], about.get("resourceVersion", "")
            if not about.get("continue"):
                return
            query["continue"] = about["continue"]

    async def apply(
        self, resource: Resource, manifest: Manifest, *, force: bool, dry_run: bool = False, subresource: str = ""
    ) -> Manifest:
        """Server-side apply under our field manager; the object as it is then.

        Without `force`, a field that another manager holds with another value is a Conflict.
        """
        metadata = manifest["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true" if force else "false"}
        if dry_run:
            query["dryRun"] = "All"
        path = resource.path(metadata["namespace"], metadata["name"], subresource)
        return await self.call("PATCH", path, manifest, query=query, content=APPLY)

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> Manifest:
        """Delete the object of that uid, its dependents in the background; the object or a `Status`.

        Raises:
            Conflict: the name belongs to another object by now.
        """
        body = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": "Background",
        }
        return await self.call("DELETE", resource.path(namespace, name), body)

    async def call(
        self,
        method: Method,
        path: str,
        body: Manifest | None = None,
        *,
        query: Query | None = None,
        content: str = JSON,
    ) -> Manifest:
        """One request; the JSON of its answer.

        Raises:
            ApiError: the server answered with an error, by kind.
            Unreachable: it did not answer in time.
        """
        return self._decoded(await self.text(method, path, body, query=query, content=content))

    async def text(
        self,
        method: Method,
        path: str,
        body: Manifest | None = None,
        *,
        query: Query | None = None,
        content: str = JSON,
    ) -> bytes:
        """The same, not decoded."""
        session = self._session
        try:
            return await self._once(method, path, body, query, content)
        except Unauthorized:
            if session is self._session:
                await self._log_in_again()
            return await self._once(method, path, body, query, content)

    async def _once(self, method: Method, path: str, body: Manifest | None, query: Query | None, content: str) -> bytes:
        assert self._session is not None, "the client is used outside its `async with`"
        self._count(method)
        data = None if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(
                method,
                self._server + path,
                params=query,
                data=data,
                headers={"Content-Type": content, "Accept": JSON},
                timeout=self._timeout,
                allow_redirects=False,
            ) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{method} {path} got no answer: {str(error) or type(error).__name__}") from error
        if answer.status >= 300:
            raise api_error(f"{method} {path}", answer.status, text, answer.headers.get("Retry-After"))
        return text

    def _decoded(self, text: bytes) -> Manifest:
        try:
            answer: Any = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Unreachable(f"the answer is no JSON: {error}") from error
        if not isinstance(answer, dict):
            raise Unreachable(f"the answer is no object but {type(answer).__name__}")
        return answer

    def _log_in(self) -> None:
        info = login.connection()
        self._server = info.server.rstrip("/")
        self._session = login.session(info, connections=CONNECTIONS)

    async def _log_in_again(self) -> None:
        """The session of before is closed at the next time: others may be in the middle of a call."""
        retired, self._earlier = self._earlier, self._session
        self._log_in()
        if retired is not None:
            await retired.close()
