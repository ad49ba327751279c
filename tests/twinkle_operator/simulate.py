"""A small model of the API server, KubeRay, the kubelet and the driver, which carries out the plans of one stack.

Everything happens in steps that a test calls: nothing runs by itself, time passes only in `tick`. What the model takes
from the real ones: KubeRay submits a RayJob once, to whichever head is ready then; a deleted RayJob has its driver sent
SIGTERM and is gone before the driver is; a driver saves a checkpoint upon SIGTERM and is killed 25 s later; a changed
template deletes all pods; pods outlive their RayCluster for a while.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import msgspec

from twinkle_operator.observed import Cluster, Job, Observed, Pod, Poll, Refusal, Stack
from twinkle_operator.plan import Event, Plan, plan
from twinkle_operator.spec import Spec
from twinkle_operator.state import Progress, Queue, Status
from twinkle_operator.words import (
    ATTEMPT_LABEL,
    HEAD_ANNOTATION,
    NOTE_ANNOTATION,
    REFUSED,
    RESTARTS_ANNOTATION,
    STOP_WAIT_S,
    TEMPLATE,
)

SPEC: dict[str, Any] = {
    "image": "twinkle:1",
    "deviceGroups": [
        {"name": "sampler", "role": "sampler", "engine": "torch", "mesh": {"dp": 2}},
        {"name": "trainer", "role": "trainer"},
    ],
    "run": {"experiment": "quickstart", "volume": {"claimName": "runs"}, "ttlSecondsAfterFinished": 60},
}


@dataclass
class LivePod:
    uid: str
    group: str
    template: str
    cluster: str
    ready: bool = False
    deleting: bool = False
    lost: bool = False
    restarts: int = 0


@dataclass
class LiveJob:
    manifest: dict[str, Any]
    uid: str
    status: str = ""
    deployment: str = ""
    exit_code: int | None = None
    deleting: bool = False
    submitted: bool = False


@dataclass
class Driver:
    job: str
    head: tuple[str, int]
    step: int
    alive: bool = True
    told: float | None = None
    exits: int | None = None


@dataclass
class World:
    spec: dict[str, Any] = field(default_factory=lambda: msgspec.json.decode(msgspec.json.encode(SPEC)))
    status: Status = field(default_factory=Status)
    generation: int = 1
    now: float = 1_000_000.0
    ahead: float = 0.0
    labels: dict[str, str] = field(default_factory=dict)
    cluster: dict[str, Any] | None = None
    cluster_uid: str = ""
    cluster_deleting: bool = False
    policy: dict[str, Any] | None = None
    pods: list[LivePod] = field(default_factory=list)
    jobs: dict[str, LiveJob] = field(default_factory=dict)
    drivers: list[Driver] = field(default_factory=list)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    saved: int | None = None
    poll: Poll | None = None
    bad_images: set[str] = field(default_factory=set)
    begun: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    writes: int = 0
    serial: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    # -- the operator ------------------------------------------------------------------------------------------------

    def stack(self) -> Stack:
        return Stack(
            name="demo", namespace="team", uid="stack-uid", generation=self.generation, labels=self.labels,
            spec=msgspec.convert(self.spec, Spec), status=self.status,
        )  # fmt: skip

    def observe(self) -> Observed:
        cluster = None
        if self.cluster is not None:
            template = self.cluster["metadata"]["annotations"][TEMPLATE]
            cluster = Cluster(uid=self.cluster_uid, template=template, deleting=self.cluster_deleting)
        pods = [
            Pod(name=pod.uid, uid=pod.uid, group=pod.group, template=pod.template, ready=pod.ready, lost=pod.lost,
                deleting=pod.deleting, restarts=pod.restarts)
            for pod in self.pods
        ]  # fmt: skip
        return Observed(
            cluster=cluster, pods=tuple(pods), jobs=tuple(map(self._job, self.jobs.values())), poll=self.poll,
            refusals=tuple(self.refusals.values()),
        )  # fmt: skip

    def _job(self, job: LiveJob) -> Job:
        metadata = job.manifest["metadata"]
        notes = metadata["annotations"]
        said = "" if job.exit_code is None else f"failed with exit code {job.exit_code}"
        return Job(
            name=metadata["name"], uid=job.uid, attempt=int(metadata["labels"][ATTEMPT_LABEL]),
            head_uid=notes[HEAD_ANNOTATION], head_restarts=int(notes[RESTARTS_ANNOTATION]), template=notes[TEMPLATE],
            note=notes[NOTE_ANNOTATION], status=job.status, deployment=job.deployment, message=said,
            exit_code=job.exit_code, deleting=job.deleting,
        )  # fmt: skip

    def plan(self) -> Plan:
        return plan(self.stack(), self.observe(), self.now + self.ahead)

    def reconcile(self, acts: int | None = None) -> Plan:
        """Carry out a plan; with `acts` the operator is killed after so many calls to the API server."""
        made, left = self.plan(), itertools.count() if acts is None else range(acts)
        budget = iter(left)
        for manifest in made.rehearsal:
            if next(budget, None) is None or self._refused(manifest):
                return made
        for manifest in made.children:
            if next(budget, None) is None or not self._apply(manifest):
                return made
        for doomed in made.deletions:
            if next(budget, None) is None:
                return made
            self._delete(doomed.kind, doomed.name, doomed.uid)
        if made.status != self.status:
            if next(budget, None) is None:
                return made
            self.status, self.writes = made.status, self.writes + 1
            self.events += made.events
        return made

    # -- the API server ----------------------------------------------------------------------------------------------

    def _refused(self, manifest: dict[str, Any]) -> bool:
        containers = str(manifest["spec"])
        bad = any(f"'image': '{image}'" in containers for image in self.bad_images)
        if manifest["kind"] == "RayCluster" and bad:
            said = "spec.headGroupSpec.template.spec.containers[0].image: invalid"
            self.refusals["RayCluster"] = Refusal(
                kind="RayCluster", name="demo", generation=self.generation, reason="InvalidPodTemplate", message=said
            )
        return bad

    def _apply(self, manifest: dict[str, Any]) -> bool:
        if self._refused(manifest):
            return False
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind == "NetworkPolicy":
            self.policy = manifest
        elif kind == "RayCluster":
            if self.cluster is None:
                self.cluster_uid, self.cluster_deleting = f"cluster-{next(self.serial)}", False
            self.cluster = manifest
        elif name in self.jobs:
            self.jobs[name].manifest = manifest
        else:
            assert name not in self.begun, f"{name} is made twice"
            self.begun.append(name)
            self.jobs[name] = LiveJob(manifest, f"job-{next(self.serial)}")
        return True

    def _delete(self, kind: str, name: str, uid: str) -> None:
        if kind == "RayCluster" and self.cluster is not None and uid == self.cluster_uid:
            self.cluster_deleting = True
        elif kind == "RayJob" and name in self.jobs and self.jobs[name].uid == uid:
            self.jobs[name].deleting = True

    # -- KubeRay -----------------------------------------------------------------------------------------------------

    def kuberay(self) -> None:
        """One pass of KubeRay and the garbage collector over everything."""
        if self.cluster_deleting:
            self.cluster, self.cluster_deleting = None, False
        for pod in self.pods:
            pod.deleting |= self.cluster is None or pod.cluster != self.cluster_uid
        if self.cluster is not None:
            self._pods(self.cluster)
        for name in list(self.jobs):
            self._follow(name, self.jobs[name])

    def _pods(self, cluster: dict[str, Any]) -> None:
        template = cluster["metadata"]["annotations"][TEMPLATE]
        if any(pod.template != template for pod in self.pods):
            for pod in self.pods:
                pod.deleting = True
            return
        groups = {each["groupName"]: each["replicas"] for each in cluster["spec"]["workerGroupSpecs"]}
        for group, wanted in {"head": 1, **groups}.items():
            there = [pod for pod in self.pods if pod.group == group]
            for pod in there:
                pod.deleting |= pod.lost
            for _ in range(wanted - len(there)):
                self.pods.append(LivePod(f"pod-{next(self.serial)}", group, template, self.cluster_uid))

    def _follow(self, name: str, job: LiveJob) -> None:
        driver = next((each for each in self.drivers if each.job == job.uid), None)
        if job.deleting:
            if driver is not None and driver.alive and driver.told is None:
                driver.told = self.now
            del self.jobs[name]
        elif not job.submitted:
            head = next((pod for pod in self.pods if pod.group == "head" and pod.ready and not pod.deleting), None)
            if self.cluster is not None and not self.cluster_deleting and head is not None:
                job.submitted, job.status, job.deployment = True, "RUNNING", "Running"
                self.drivers.append(Driver(job.uid, (head.uid, head.restarts), self.saved or 0))
        elif driver is not None and driver.exits is not None:
            job.exit_code = driver.exits
            job.status, job.deployment = ("SUCCEEDED", "Complete") if driver.exits == 0 else ("FAILED", "Failed")

    # -- the kubelet, and the driver ---------------------------------------------------------------------------------

    def kubelet(self) -> None:
        """Pods that were deleted are gone, with what ran on them; the others are ready; told drivers save and end."""
        self.pods = [pod for pod in self.pods if not pod.deleting]
        for pod in self.pods:
            pod.ready = not pod.lost
        heads = {(pod.uid, pod.restarts) for pod in self.pods if not pod.lost}
        if "volume" not in self.spec["run"] and not any(pod.group == "head" and not pod.lost for pod in self.pods):
            self.saved = None  # it lay on the head
        for driver in self.drivers:
            driver.alive &= driver.head in heads
            if driver.alive and driver.told is not None and self.now - driver.told >= STOP_WAIT_S:
                driver.alive = False

    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.kubelet()

    @property
    def running(self) -> list[Driver]:
        return [driver for driver in self.drivers if driver.alive]

    def train(self, steps: int = 1, *, save: bool = False) -> None:
        for driver in self.running:
            driver.step += steps
            if save:
                self.saved = max(self.saved or 0, driver.step)

    def save_and_stop(self) -> None:
        """The drivers that were told do what they were told."""
        for driver in self.running:
            if driver.told is not None:
                self.saved, driver.alive = max(self.saved or 0, driver.step), False

    def exit(self, code: int) -> None:
        for driver in self.running:
            driver.alive, driver.exits = False, code

    def ask(self) -> None:
        """Poll the head's status endpoint."""
        driver = self.running[-1] if self.running else None
        if driver is None:
            self.poll = Poll(at=self.now + self.ahead, why=REFUSED, message="connection refused")
            return
        queue = Queue(task="train", ready=48, required=64, reason="MissingField", summary="48/64")
        progress = Progress(step=driver.step, reward="0.5000", version=f"1.{driver.step}", checkpoint_step=self.saved)
        self.poll = Poll(at=self.now + self.ahead, queue=queue, progress=progress, reason="MissingField", text="why")

    # -- what happens from outside -----------------------------------------------------------------------------------

    def change(self, **parts: Any) -> None:
        """A new spec: another generation."""
        self.spec = {**self.spec, **parts}
        self.generation += 1

    def head(self) -> LivePod | None:
        return next((pod for pod in self.pods if pod.group == "head" and not pod.deleting), None)

    def settle(self, rounds: int = 60) -> None:
        """Let everything run without trouble."""
        for _ in range(rounds):
            self.reconcile()
            self.kuberay()
            self.save_and_stop()
            self.tick(5)
            self.ask()

    def condition(self, kind: str) -> tuple[str, str]:
        found = next(each for each in self.status.conditions if each.type == kind)
        return found.status, found.reason
