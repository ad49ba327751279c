"""A pass whose writes fail: what the polls said is kept until it is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.twinkle_operator import raw
from tests.twinkle_operator.test_poller import answer, server
from tests.twinkle_operator.test_status_document import status
from twinkle_operator.cache import Cache
from twinkle_operator.client import Client
from twinkle_operator.errors import Unreachable
from twinkle_operator.poller import Poller
from twinkle_operator.reconcile import Reconciler
from twinkle_operator.resources import CLUSTERS, JOBS, PODS, STACKS
from twinkle_operator.served import Served
from twinkle_operator.settings import Settings
from twinkle_operator.words import ATTEMPT_LABEL, STACK_LABEL

KEY = ("n", "s")


class Deaf(Client):
    """A client whose API server is away."""

    async def call(self, *_: Any, **__: Any) -> Any:
        raise Unreachable("the API server is away")


def ended(cache: Cache) -> None:
    """A stack whose attempt is over, which its status does not tell yet."""
    cache.seen(STACKS, raw.stack(1, status={"attempts": 1}))
    cache.seen(CLUSTERS, raw.child("RayCluster", 2))
    cache.seen(PODS, raw.pod(3, conditions=[{"type": "Ready", "status": "True"}]))
    labels = {STACK_LABEL: "s", ATTEMPT_LABEL: "1"}
    over = {"jobStatus": "SUCCEEDED", "jobDeploymentStatus": "Complete"}
    cache.seen(JOBS, raw.child("RayJob", 4, name="s-1", uid="job-1", metadata={"labels": labels}, status=over))


def test_the_last_answer_of_a_head_is_kept_until_the_end_of_its_job_is_written() -> None:
    async def scene() -> None:
        cache, client = Cache(), Deaf()
        served = Served(client)
        served.kuberay = True
        ended(cache)
        async with server(answer(status(step=1500))) as url, Poller(lambda _: None, lambda: 7.0, address=url) as polls:
            passes = Reconciler(client, cache, served, polls, settings=Settings(), clock=lambda: 7.0, now=lambda: 7.0)
            polls.poll(KEY, "s", "pod-p/0")
            while polls.newest(KEY) is None:
                await asyncio.sleep(0.001)

            with pytest.raises(Unreachable):
                await passes.reconcile(KEY)
            assert polls.newest(KEY) is not None

            cache.seen(STACKS, raw.stack(9, status={"attempts": 1, "ended": 1}))
            with pytest.raises(Unreachable):
                await passes.reconcile(KEY)
            assert polls.newest(KEY) is None

    asyncio.run(asyncio.wait_for(scene(), 20))
