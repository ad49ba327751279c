"""Lists fill the cache, whatever is in them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from unittest import mock

import pytest

from tests.twinkle_operator import raw
from twinkle_operator import strip
from twinkle_operator.cache import Cache
from twinkle_operator.client import Client
from twinkle_operator.listing import refresh
from twinkle_operator.resources import JOBS, STACKS, Manifest, Resource


class Lists(Client):
    """Answers with these objects."""

    def __init__(self, objects: dict[str, list[Manifest]]) -> None:
        super().__init__()
        self._objects = objects

    async def list(self, resource: Resource, namespace: str | None) -> AsyncIterator[tuple[list[Manifest], str]]:
        yield self._objects[resource.kind], "9"


def test_an_object_that_cannot_be_read_keeps_no_other_from_the_cache(caplog: pytest.LogCaptureFixture) -> None:
    client, cache = Lists({"RayJob": [raw.child("RayJob", 2)], "TrainingStack": [raw.stack(1)]}), Cache()
    with mock.patch.object(strip, "owner", side_effect=ValueError("nobody thought of this")):
        changed = asyncio.run(refresh(client, cache, (JOBS, STACKS), (None,)))

    assert changed == {("n", "s")}
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.ERROR, "RayJob n/s cannot be read")
    ]
