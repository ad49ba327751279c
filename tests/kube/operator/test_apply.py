"""What an apply does of which the cache knows nothing, on a real API server and without an operator's process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.kube.kuberay import KubeRay, stack
from twinkle_operator import render, strip
from twinkle_operator.apply import Applier
from twinkle_operator.cache import Cache
from twinkle_operator.client import Client
from twinkle_operator.errors import NameTaken, Outdated
from twinkle_operator.observed import Pod, Stack
from twinkle_operator.words import HEAD_ANNOTATION

Object = dict[str, Any]


def apply(kubeconfig: Path, seen: Stack, manifest: Object) -> bool:
    """By an operator that has just started: its cache is empty."""

    async def once() -> bool:
        async with Client() as client:
            return await Applier(client, Cache()).apply(seen, manifest)

    with mock.patch.dict(os.environ, KUBECONFIG=str(kubeconfig)):
        return asyncio.run(once())


def job(seen: Stack, head: str) -> Object:
    assert seen.spec is not None
    return render.job(seen, seen.spec, 1, Pod(name="head", uid=head, group="head"), "{}")


def test_a_job_of_somebody_else_is_not_taken_over(kuberay: KubeRay, operator_kubeconfig: Path, namespace: str) -> None:
    seen = strip.stack(kuberay.create(stack("s", namespace)))
    theirs = {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "s-1", "namespace": namespace}}
    before = kuberay.create({**theirs, "spec": {"suspend": True}})
    with pytest.raises(NameTaken, match=r"RayJob .*/s-1 belongs to somebody else"):
        apply(operator_kubeconfig, seen, job(seen, "head-1"))

    assert kuberay.get("RayJob", namespace, "s-1") == before


def test_an_attempt_that_another_operator_began_stays_as_it_is(
    kuberay: KubeRay, operator_kubeconfig: Path, namespace: str
) -> None:
    seen = strip.stack(kuberay.create(stack("s", namespace)))
    assert apply(operator_kubeconfig, seen, job(seen, "head-1"))
    with pytest.raises(Outdated, match="has begun already"):
        apply(operator_kubeconfig, seen, job(seen, "head-2"))

    made = kuberay.get("RayJob", namespace, "s-1")
    assert made is not None
    assert made["metadata"]["annotations"][HEAD_ANNOTATION] == "head-1"


def test_a_child_whose_label_was_removed_gets_it_back(
    kuberay: KubeRay, operator_kubeconfig: Path, namespace: str
) -> None:
    """Without the label no cache sees it."""
    seen = strip.stack(kuberay.create(stack("s", namespace)))
    assert apply(operator_kubeconfig, seen, job(seen, "head-1"))
    before = kuberay.get("RayJob", namespace, "s-1")
    kuberay.patch("RayJob", namespace, "s-1", {"metadata": {"labels": None}})
    assert apply(operator_kubeconfig, seen, job(seen, "head-1"))

    after = kuberay.get("RayJob", namespace, "s-1")
    assert before is not None
    assert after is not None
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
