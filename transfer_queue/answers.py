"""What a queue says of itself: where tasks stand, the counts, and single rows. Nothing here changes it."""

from __future__ import annotations

from dataclasses import replace

from transfer_queue import wire
from transfer_queue.custom import CustomSamplers
from transfer_queue.ledger.explain import EARLIER, LOST_SAMPLER, NEVER_ASKED, Explanation, Reason, explain
from transfer_queue.peeking import look
from transfer_queue.recorder import Recorder
from transfer_queue.room import Room
from transfer_queue.samplers.registry import SamplerRegistry
from transfer_queue.statistics import gather
from transfer_queue.traffic import Traffic
from transfer_queue.waiting import Consumer, Line


class Answers:
    """Looks at everything of one queue, always at this moment."""

    def __init__(
        self, recorder: Recorder, registry: SamplerRegistry, line: Line, room: Room, custom: CustomSamplers,
        traffic: Traffic,
    ) -> None:  # fmt: skip
        self._recorder, self._registry, self._line, self._room = recorder, registry, line, room
        self._custom, self._traffic = custom, traffic
        self._ledger, self._catalog = recorder.state.ledger, recorder.state.catalog

    def explain(self, consumer: Consumer) -> Explanation:
        """Where a request that waits stands now."""
        self._recorder.now()
        explanation = self._custom.explained(consumer, explain(self._ledger, consumer.want))
        ahead = self._line.ahead_of(consumer)
        if ahead is not None:
            text = f"go first to {ahead.caller.client!r}, whose earlier request waits"
            reason = Reason(EARLIER, ahead.want.needed, text, holder=ahead.caller.client)
            explanation = replace(explanation, reasons=(*explanation.reasons, reason))
        return self._unless_lost(explanation)

    def why(self, task: str) -> Explanation:
        """Where the task stands: by the first of its requests that wait, else by its latest request."""
        waiting = self._line.of_task(task)
        return self.explain(waiting[0]) if waiting else self._unless_lost(self._latest(task))

    def _latest(self, task: str) -> Explanation:
        """Where the latest request of a task stands of which none waits."""
        want = self._ledger.last_wants.get(task)
        if want is not None:
            self._recorder.now()
            return explain(self._ledger, want)
        rows = sum(partition.produced for partition in self._ledger.steps.in_order())
        reason = Reason(NEVER_ASKED, rows, "are there, but the task has never asked for any")
        return Explanation(task, None, (), 0, 0, (reason,))

    def _unless_lost(self, explanation: Explanation) -> Explanation:
        """The explanation, which begins with the sampler where that is what stands in the way."""
        lost = self._lost(explanation.task)
        if not lost:
            return explanation
        reason = Reason(LOST_SAMPLER, explanation.needed, f"cannot be chosen: {lost}")
        return replace(explanation, reasons=(reason, *explanation.reasons))

    def _lost(self, task: str) -> str:
        """Why no request of the task can be served until a person does something; empty if they can."""
        return self._custom.lost(task) or self._registry.lost_of(task)

    def stats(self) -> wire.Stats:
        """The counts."""
        self._recorder.now()
        journal = self._recorder.journal
        return gather(
            self._ledger, self._line, self._room.waiting, self._traffic,
            lost=self._lost,
            stored_bytes=self._catalog.stored_bytes,
            capacity_bytes=self._room.capacity_bytes,
            journal_bytes=None if journal is None else journal.bytes_since_snapshot + journal.snapshot_bytes,
            segments=self._catalog.segments,
        )  # fmt: skip

    def survey(self, asked: wire.Survey) -> wire.Surveyed:
        """The counts, and where every task stands (at most 32), or the one that was asked for."""
        stats = self.stats()
        tasks = list(stats.tasks)[-wire.MOST_TASKS :] if asked.task is None else [asked.task]
        return wire.Surveyed(stats, [self.why(task) for task in tasks])

    def peek(self, asked: wire.Peek) -> wire.Peeked:
        """The first rows."""
        return look(self._ledger, self._catalog.glimpses, asked)
