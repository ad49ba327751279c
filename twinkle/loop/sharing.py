"""How the calls of a step are shared out over the ranks of a device group."""

from collections.abc import Sequence
from typing import Any

from twinkle.infra import Call, DeviceMesh
from twinkle.infra.dispatch import slices


def shared_out(mesh: DeviceMesh, step: int, count: int) -> Sequence[Call | None]:
    """Each data rank works on its share of ``count`` items of the step; those beyond are not called."""
    calls = [Call((step, len(part)), offset=part.start, size=len(part)) for part in slices(count, mesh.data_size)]
    return [*calls, *[None] * (mesh.data_size - len(calls))]


def first_rank(mesh: DeviceMesh, *args: Any, **kwargs: Any) -> Sequence[Call | None]:
    """Data rank 0 alone is called: what it has, all have."""
    return [Call(args, kwargs), *[None] * (mesh.data_size - 1)]
