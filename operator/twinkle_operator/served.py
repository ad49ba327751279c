"""Which kinds the API server serves now: KubeRay may be installed, or removed, while the operator runs."""

from __future__ import annotations

from twinkle_operator.client import Client
from twinkle_operator.errors import NotFound
from twinkle_operator.resources import CLUSTERS, EVENTS, JOBS, PODS, POLICIES, STACKS, Resource
from twinkle_operator.words import RAY_API_VERSION

MISSING = (
    f"the API server has no {RAY_API_VERSION} RayCluster and RayJob: install KubeRay 1.6.2 or newer "
    "(helm install kuberay-operator kuberay/kuberay-operator)"
)
OLD = f"KubeRay's {RAY_API_VERSION} is older than 1.6.2: its CRD has no {{fields}}"


class Served:
    """What is served, as last asked."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.stacks = False
        self.kuberay = False

    @property
    def missing(self) -> str:
        """Why KubeRay cannot be used; empty if it can."""
        return "" if self.kuberay else MISSING

    @property
    def watched(self) -> tuple[Resource, ...]:
        """The kinds that can be watched, stacks last, so that a list of all finds their children first."""
        return (
            POLICIES,
            PODS,
            EVENTS,
            *((CLUSTERS, JOBS) if self.kuberay else ()),
            *((STACKS,) if self.stacks else ()),
        )

    async def ask(self) -> bool:
        """Ask; whether anything changed.

        Raises:
            ApiError, Unreachable: nothing is known anew.
        """
        before = self.watched
        self.stacks = await self._has(STACKS)
        self.kuberay = await self._has(CLUSTERS, JOBS)
        return self.watched != before

    async def _has(self, *resources: Resource) -> bool:
        try:
            answer = await self._client.call("GET", f"/apis/{resources[0].api_version}")
        except NotFound:
            return False
        plurals = {each.get("name") for each in answer.get("resources") or ()}
        return all(resource.plural in plurals for resource in resources)
