"""The life of a stack: what to do next. Attempts, restarts, suspend and resume, rollouts, deadlines, the end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from twinkle_operator import clock, counters, groups, render
from twinkle_operator.groups import Said
from twinkle_operator.merging import Object
from twinkle_operator.observed import Job, Observed, Pod, Poll, Stack
from twinkle_operator.quiet import has_saved, is_dead
from twinkle_operator.spec import Spec
from twinkle_operator.state import Condition, Status
from twinkle_operator.verdict import Ended, is_over, verdict
from twinkle_operator.words import DEAD_S, HEAD, KUEUE_LABEL, MOST_FRUITLESS, REFUSED, STOPPED_S, TEMPLATE

Outcome = Literal["Complete", "Failed"]
UNKNOWN = Said("Unknown", "nothing is known yet")
ANEW = "the run begins anew: without run.volume its folder goes with the head pod"
HEADLESS = frozenset({"ClusterLost", "HeadLost", "HeadEvicted", "Suspended"})
"""Ends of an attempt with which its head pod goes."""


@dataclass(slots=True)
class Life:
    """One stack at one moment, and what is decided for it so far.

    `blocked` says why no child may be made from the spec as it is; what runs goes on.
    """

    stack: Stack
    spec: Spec
    observed: Observed
    now: float
    status: Status
    blocked: Said | None = None
    stage: Said = UNKNOWN
    cluster: Object | None = None
    rehearsal: Object | None = None
    job: Object | None = None
    doomed: dict[tuple[str, str], str] = field(default_factory=dict)
    outcome: tuple[Outcome, Said] | None = None
    running: bool = False
    ended: str = ""
    wakes: list[float] = field(default_factory=list)

    def decide(self) -> None:
        """Fill in what to apply and delete, the counters, and the stage that Ready tells."""
        self.status = counters.recovered(self.status, self.observed.jobs)
        self.status = counters.learned(self.status, self.observed.poll)
        self.outcome = _told(self.status)
        if self.outcome is None:
            self.status = counters.clocked(self.status, paused=self.spec.suspend, now=self.now)
            self._settle()
        self._forget_what_went()
        if self.outcome is None:
            if self.spec.suspend:
                self._suspended()
            else:
                self._wanted()
        if self.outcome is not None:
            self._finished(*self.outcome)
        self._sweep()

    # -- the attempt -------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """An attempt has begun and is not over."""
        return self.status.ended < self.status.attempts

    @property
    def newest(self) -> Job | None:
        """The RayJob of the newest attempt."""
        return next((job for job in self.observed.jobs if job.attempt == self.status.attempts), None)

    def _settle(self) -> None:
        """Count the end of an attempt that ended by itself; the end of the stack, if that was it."""
        ended = verdict(self.status.attempts, self.newest, self.observed) if self.live else None
        if ended is not None:
            self._end(ended)
        limit = self.spec.run.active_deadline_seconds
        if self.outcome is None and limit is not None and self.status.attempts:
            left = limit - counters.active(self.status, self.now)
            if left <= 0:
                self.outcome = ("Failed", Said("DeadlineExceeded", f"not done {limit} s after the first attempt"))
            elif not self.spec.suspend:
                self.wakes.append(left)

    def _forget_what_went(self) -> None:
        """Without a volume a checkpoint is where the driver's head pod was, and no longer than that."""
        job, progress = self.newest, self.status.progress
        heads = [pod for pod in self.observed.pods if pod.group == HEAD and not pod.lost]
        there = [pod for pod in heads if job is None or pod.uid == job.head_uid]
        if progress is not None and not there and self.spec.run.volume is None:
            self.status = replace(self.status, progress=replace(progress, checkpoint_step=None))

    def _end(self, ended: Ended) -> None:
        if ended.reason in HEADLESS and self.spec.run.volume is None:
            ended = replace(ended, message=f"{ended.message}; {ANEW}")
        self.status = counters.counted(self.status, ended)
        self.stage, self.ended = Said(ended.reason, ended.message), ended.message
        job = self.newest
        if job is None or not is_over(job):
            self.status = counters.stopping(self.status, self.now)
        if self.outcome is not None:
            return
        failures, most = self.status.failures, self.spec.run.backoff_limit
        if ended.kind == "complete":
            self.outcome = ("Complete", self.stage)
        elif ended.kind == "invalid":
            self.outcome = ("Failed", self.stage)
        elif failures > most:
            said = f"{failures} entrypoints failed, run.backoffLimit is {most}; {ended.message}"
            self.outcome = ("Failed", Said("BackoffLimitExceeded", said))
        elif self.status.fruitless >= MOST_FRUITLESS:
            said = f"{self.status.fruitless} restarts without a new checkpoint; {ended.message}"
            self.outcome = ("Failed", Said("NoProgress", said))

    def _interrupt(self, reason: str, message: str) -> None:
        """End the running attempt for a reason of ours; it is a restart."""
        if self.live:
            self._end(Ended("restart", reason, message))

    def _sweep(self) -> None:
        """Delete the RayJobs before the newest, and every one whose attempt is over while its driver is not.

        KubeRay has Ray send the driver SIGTERM, upon which it saves a checkpoint. A RayJob that the written status does
        not name yet stays until it does: a crash in between would give its name to another.
        """
        for job in self.observed.jobs:
            is_older = job.attempt < self.status.attempts and self.newest is not None
            if is_older or (job.attempt <= self.status.ended and not is_over(job)):
                if job.attempt <= self.stack.status.attempts:
                    self._delete("RayJob", job.name, job.uid, job.deleting)
                else:
                    self.wakes.append(0.0)

    # -- suspended and finished --------------------------------------------------------------------------------------

    def _suspended(self) -> None:
        self._interrupt("Suspended", "suspended by spec.suspend")
        if self._let_go():
            on = "goes on from the newest checkpoint" if self.spec.run.volume else f"is a new start: {ANEW}"
            self.stage = Said("Suspended", f"suspended: no pods; spec.suspend=false {on}")
        else:
            self.stage = Said("Suspending", self._leaving())

    def _finished(self, outcome: Outcome, said: Said) -> None:
        """The cluster goes ttlSecondsAfterFinished later; the last RayJob stays, unless its driver still runs."""
        self.stage = said
        self.cluster = self.rehearsal = self.job = None
        self.status = counters.clocked(self.status, paused=True, now=self.now)
        if self.live:  # the deadline passed
            self._end(Ended("deadline", said.reason, said.message))
        since = next((each for each in self.status.conditions if each.type == outcome and each.status == "True"), None)
        passed = clock.elapsed(since.last_transition_time, self.now) if since else 0.0
        job = self.newest
        followed = job is None or not is_over(job) or job.deployment in ("Complete", "Failed")
        left = max(0 if self.spec.suspend else self.spec.run.ttl_seconds_after_finished, 0 if followed else STOPPED_S)
        if left <= passed:
            self._let_go()
        elif self.observed.cluster is not None:
            self.wakes.append(left - passed)

    def _let_go(self) -> bool:
        """Delete the RayCluster once the driver has saved; True when no pod is left."""
        cluster = self.observed.cluster
        if cluster is None and not self.observed.pods:
            self.status = replace(self.status, stopping_since=None)
            return True
        if cluster is not None and not cluster.deleting:
            if has_saved(self.status, self.observed, self.now):
                self._delete("RayCluster", self.stack.name, cluster.uid, cluster.deleting)
            else:
                self._wake_after_stop(STOPPED_S)
        return False

    def _leaving(self) -> str:
        if self.observed.cluster is not None and not self.observed.cluster.deleting:
            return f"{self._saving()}, then the pods go"
        return f"{len(self.observed.pods)} pods are going"

    def _saving(self) -> str:
        return "the driver saves a checkpoint" if self.spec.run.volume else f"the driver stops ({ANEW})"

    # -- wanted ------------------------------------------------------------------------------------------------------

    def _wanted(self) -> None:
        cluster = self.observed.cluster
        refusal = self.blocked or self._refusal("NetworkPolicy") or self._refusal("RayCluster")
        wish = render.cluster(self.stack, self.spec)
        same = groups.template_of(self.observed) == wish["metadata"]["annotations"][TEMPLATE]
        if cluster is None and not self.observed.pods:
            self.status = replace(self.status, stopping_since=None)
        if cluster is not None and not cluster.deleting and refusal is None and not same:
            self._roll(wish)
        elif cluster is None or cluster.deleting:
            gone = cluster is None and not self.observed.pods
            if gone and refusal is None:
                self.cluster = wish
            self.stage = Said("Provisioning", "the RayCluster is made") if gone else Said("Replacing", self._leaving())
        else:
            if refusal is None and (KUEUE_LABEL not in self.stack.labels or not cluster.template):
                self.cluster = wish
            self._attempt(may_roll=refusal is None)
        if refusal is not None and self.outcome is None:
            self.stage = refusal

    def _roll(self, wish: Object) -> None:
        """Another template: the driver saves and stops, then the changed RayCluster has KubeRay make all pods anew."""
        lost = "" if self.spec.run.volume else f"; {ANEW}"
        self._interrupt("RolledOut", f"the spec of the pods changed{lost}")
        self.stage = Said("RollingOut", f"the spec changed: {self._saving()}, then all pods are made anew")
        if has_saved(self.status, self.observed, self.now):
            self.cluster = wish
        else:
            self.rehearsal = wish
            self._wake_after_stop(STOPPED_S)

    def _attempt(self, *, may_roll: bool) -> None:
        """On a live cluster of the wanted template: watch the attempt, or begin the next."""
        job = self.newest
        if self.live and job is not None:
            changed = may_roll and job.template != render.entrypoint_digest(self.stack, self.spec)
            if not changed or job.status != "RUNNING":  # what is not submitted yet cannot be stopped for sure
                return self._watch(job)
            self._interrupt("RolledOut", "the settings of the run changed")
        assert self.observed.cluster is not None, "an attempt needs a cluster"
        waits = groups.unready(self.spec, self.observed, self.observed.cluster)
        head = groups.ready_head(self.observed)
        may_live = self._driver_may_live()
        if waits is not None or head is None:
            self.stage = waits or Said("HeadNotReady", "0 of 1 pods of head ready")
        elif may_live:
            self.stage = Said("Restarting", "the driver of the last attempt is stopping")
        else:
            self._begin(head)
        return None

    def _watch(self, job: Job) -> None:
        assert self.observed.cluster is not None, "an attempt without a cluster is over"
        self.status = replace(self.status, ray_job=job.name, stopping_since=None)
        self.running = True
        waits = groups.unready(self.spec, self.observed, self.observed.cluster)
        if waits is not None:
            self.stage = waits
        elif job.status == "RUNNING" and _is_refused(self.observed.poll):
            self.stage = Said("NoDriver", f"attempt {job.attempt}: its driver does not listen yet, or has just ended")
        elif job.status == "RUNNING":
            self.stage = Said("Running", f"attempt {job.attempt} runs")
        else:
            self.stage = Said("Starting", f"attempt {job.attempt} is being submitted")

    def _begin(self, head: Pod) -> None:
        """The next attempt, on this head. The status names it once its RayJob has been seen."""
        number = self.status.attempts + 1
        refusal = self._refusal("RayJob")
        self.stage = refusal or Said("Starting", f"attempt {number} begins")
        if refusal is None:
            self.job = render.job(self.stack, self.spec, number, head, counters.note(self.status))

    def _driver_may_live(self) -> bool:
        """A driver that was told to stop on a head that lives on: no other may begin beside it."""
        if any(not is_over(job) for job in self.observed.jobs):
            self.status = counters.stopping(self.status, self.now)
            if clock.elapsed(self.status.stopping_since, self.now) > DEAD_S / 4:
                self.status = replace(self.status, stopping_since=clock.stamp(self.now))
            self._wake_after_stop(DEAD_S)
            return True
        if is_dead(self.status, self.observed, self.now):
            self.status = replace(self.status, stopping_since=None)
            return False
        self._wake_after_stop(DEAD_S)
        return True

    # -- odds --------------------------------------------------------------------------------------------------------

    def _refusal(self, kind: str) -> Said | None:
        for refusal in self.observed.refusals:
            if refusal.kind == kind and refusal.generation == self.stack.generation:
                return Said(groups.word(refusal.reason, "Refused"), refusal.message)
        return None

    def _delete(self, kind: str, name: str, uid: str, deleting: bool) -> None:
        if not deleting:
            self.doomed[kind, name] = uid

    def _wake_after_stop(self, wait_s: float) -> None:
        self.wakes.append(wait_s - clock.elapsed(self.status.stopping_since, self.now))


def _is_refused(poll: Poll | None) -> bool:
    return poll is not None and poll.why == REFUSED


def _told(status: Status) -> tuple[Outcome, Said] | None:
    """The end that the status tells of."""
    for outcome in ("Complete", "Failed"):
        found: Condition | None = next((each for each in status.conditions if each.type == outcome), None)
        if found is not None and found.status == "True":
            return outcome, Said(found.reason, found.message)
    return None
