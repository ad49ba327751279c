"""A board for weights on Ray: an actor without a CPU beside the driver of the run."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from twinkle.errors import ConfigError, WeightSyncError
from twinkle.loop.payload import Version, WeightPayload

NAME = "weights"
ANSWER_S = 60.0


class WeightActor:
    """What runs inside the actor."""

    def __init__(self) -> None:
        self._payload: WeightPayload | None = None

    def publish(self, payload: WeightPayload) -> None:
        """Replace what hangs here."""
        self._payload = payload

    def newest(self, known: Version | None) -> WeightPayload | None:
        """What hangs here, unless that is known."""
        return None if self._payload is None or self._payload.version == known else self._payload


class WeightsOnRay:
    """The board of a run for every process of its cluster; the tensors travel through Ray's object store."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace

    @property
    def address(self) -> Mapping[str, str]:
        """The namespace of its actor."""
        return {"namespace": self.namespace}

    def publish(self, payload: WeightPayload) -> None:
        """See WeightBoard.publish."""
        self._ask(self._actor.publish.remote(payload))

    def newest(self, known: Version | None) -> WeightPayload | None:
        """See WeightBoard.newest."""
        found: WeightPayload | None = self._ask(self._actor.newest.remote(known))
        return found

    @cached_property
    def _actor(self) -> Any:
        if not ray.is_initialized():
            raise ConfigError("the run's weights are on Ray, and this process is not: set infra.mode=ray")
        try:
            return ray.get_actor(NAME, namespace=self.namespace)
        except ValueError as error:
            raise WeightSyncError(
                f"This Ray cluster has no weights of the run {self.namespace}: has the run ended, or is it on another "
                "cluster (infra.address)?"
            ) from error

    def _ask(self, answer: Any) -> Any:
        try:
            return ray.get(answer, timeout=ANSWER_S)
        except GetTimeoutError as error:
            raise WeightSyncError(
                f"The board with the weights of the run {self.namespace} did not answer within {ANSWER_S:g} s."
            ) from error
        except RayError as error:
            raise WeightSyncError(
                f"The board with the weights of the run {self.namespace} is gone ({error}): has the run ended?"
            ) from error


@contextmanager
def weights_on_ray() -> Iterator[WeightsOnRay]:
    """A new board while the block runs, on the machine of this process."""
    namespace = f"twinkle-{secrets.token_hex(4)}"
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = (
        ray.remote(num_cpus=0)(WeightActor).options(name=NAME, namespace=namespace, scheduling_strategy=here).remote()
    )
    try:
        yield WeightsOnRay(namespace)
    finally:
        ray.kill(actor)
