"""Lists of everything that is watched: they fill the cache at the start, and find what the watches missed later."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from twinkle_operator.cache import Cache
from twinkle_operator.client import Client
from twinkle_operator.errors import ApiError, Forbidden, NotFound, Unreachable
from twinkle_operator.resources import EVENTS, Key, Manifest, Resource

log = logging.getLogger(__name__)

TRIES = 4
FIRST_S, MOST_S = 0.25, 5.0
"""Between two tries of one list."""


async def refresh(
    client: Client, cache: Cache, resources: Iterable[Resource], namespaces: Iterable[str | None]
) -> set[Key]:
    """Make the cache hold what the server holds; the stacks of which something changed.

    A watch tells of what happens while it lasts. What was deleted between two of them nobody tells: kopf lists
    anew, and shows what is there. A namespace of None is the whole cluster.

    Raises:
        ApiError, Unreachable: the cache holds what it held, or newer.
    """
    changed: set[Key] = set()
    for resource in resources:
        for namespace in namespaces:
            changed |= await _refresh(client, cache, resource, namespace)
    return changed


async def _refresh(client: Client, cache: Cache, resource: Resource, namespace: str | None) -> set[Key]:
    for left in reversed(range(TRIES)):
        try:
            return await _list(client, cache, resource, namespace)
        except NotFound:
            return set()  # its CRD was removed
        except (ApiError, Unreachable) as error:
            if not left or isinstance(error, Forbidden):
                raise
            asked = error.retry_after if isinstance(error, ApiError) else None
            await asyncio.sleep(min(asked or FIRST_S * 2 ** (TRIES - 1 - left), MOST_S))
    return set()


def _seen(cache: Cache, resource: Resource, raw: Manifest) -> set[Key]:
    """An object that cannot be read is passed over: whoever made it, the stacks of others go on."""
    try:
        key = cache.seen(resource, raw)
    except Exception:
        metadata = raw["metadata"]
        log.exception("%s %s/%s cannot be read", resource.kind, metadata["namespace"], metadata["name"])
        return set()
    return set() if key is None else {key}


async def _list(client: Client, cache: Cache, resource: Resource, namespace: str | None) -> set[Key]:
    changed: set[Key] = set()
    names: set[tuple[str, str]] = set()
    version = "0"
    cache.begin_list(resource)
    try:
        async for chunk, of in client.list(resource, namespace):
            version = of
            for raw in chunk:
                names.add((raw["metadata"]["namespace"], raw["metadata"]["name"]))
                changed |= _seen(cache, resource, raw)
    except BaseException:
        cache.end_list(resource, namespace, names, "0")
        raise
    if resource == EVENTS:
        cache.end_list(resource, namespace, names, "0")
        return changed
    return changed | cache.end_list(resource, namespace, names, version)
