"""What segments are, files or storage actors: whose owner died, which may be removed, which are lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from transfer_queue import operations as op
from transfer_queue.errors import FieldError
from transfer_queue.recorder import Recorder
from transfer_queue.storage.segments import Segment

Then = Callable[[Sequence[Segment]], None]


class Kind(Protocol):
    """One kind of segments. Nothing here waits: what takes time is done in a thread, and its answer posted."""

    def has(self, path: str) -> bool:
        """Whether the path is of this kind."""

    def check(self, path: str, size: int) -> None:
        """`FieldError` unless this can be a segment of this queue."""

    def watch(self, segment: Segment, lost: Then) -> None:
        """The segment is in use from now on; call `lost` with it if its values die."""

    def abandoned(self, segment: Segment) -> bool:
        """Whether nobody will write into it any more, as far as is known now."""

    def missing(self, segments: Sequence[Segment], then: Then) -> None:
        """Call `then`, soon, with those of them whose values are lost."""

    def remove(self, segment: Segment) -> None:
        """Nobody writes into it, and its last row is gone."""


class SegmentPlaces:
    """The effects that go with `Segments`; `changed` is called after values were lost."""

    def __init__(self, recorder: Recorder, kinds: Sequence[Kind], changed: Callable[[], None]) -> None:
        self._recorder, self._kinds, self._changed = recorder, kinds, changed
        self._segments = recorder.state.catalog.segments
        for segment in self._segments.known.values():
            self.watch(segment.number)

    def check(self, path: str, size: int) -> None:
        """`FieldError` unless this can be a segment of this queue."""
        self._kind_of(path).check(path, size)

    def watch(self, number: int) -> None:
        """Rows may come to lie in this segment from now on."""
        segment = self._segments.known[number]
        self._kind_of(segment.path).watch(segment, self._lose)

    def sweep(self) -> None:
        """Notice owners that died, and remove the segments that nobody writes into and whose last row is gone."""
        known = self._segments.known.values()
        dead = [each.number for each in known if not each.orphan and self._kind_of(each.path).abandoned(each)]
        if dead:
            self._recorder.do(None, op.AbandonSegments(dead))
        for segment in self._segments.removable():
            self._kind_of(segment.path).remove(segment)
            self._recorder.do(None, op.RemoveSegment(segment.number))

    def missing(self, numbers: Sequence[int], then: Callable[[bool], None]) -> None:
        """Look whether these are lost; if so their rows are made again. `then` is told whether any are."""
        known = self._segments.known
        segments = [known[number] for number in numbers if number in known]
        asked = [(kind, [each for each in segments if kind.has(each.path)]) for kind in self._kinds]
        asked = [(kind, mine) for kind, mine in asked if mine]
        left, any_lost = len(asked), False

        def found(lost: Sequence[Segment]) -> None:
            nonlocal left, any_lost
            self._lose(lost)
            left, any_lost = left - 1, any_lost or bool(lost)
            if not left:
                then(any_lost)

        for kind, mine in asked:
            kind.missing(mine, found)
        if not asked:
            then(False)

    def _lose(self, segments: Sequence[Segment]) -> None:
        known = self._segments.known
        lost = [each.number for each in segments if each.number in known and (each.live or not each.orphan)]
        if lost:
            self._recorder.do(None, op.Lose(lost))
            self._changed()

    def _kind_of(self, path: str) -> Kind:
        for kind in self._kinds:
            if kind.has(path):
                return kind
        raise FieldError(f"{path!r} is no segment: neither a file nor a storage actor")
