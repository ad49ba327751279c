"""What segments are, files or storage actors: whose owner died, which may be removed, which are lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from transfer_queue import operations as op
from transfer_queue.errors import FieldError, FieldLostError
from transfer_queue.recorder import Recorder
from transfer_queue.storage.far_reader import Column, FarReader
from transfer_queue.storage.segments import Segment
from transfer_queue.transport.link import Post
from transfer_queue.wire import Frame

READS = 4
"""Reads for clients that cannot read themselves, under way at once."""
READ_S = 60.0

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

    def sweep(self, told: Set[str]) -> None:
        """Remove what is none of those that were told of, and never will be, for its owner died before."""

    def remove(self, segment: Segment) -> None:
        """Nobody writes into it, and its last row is gone."""


class SegmentPlaces:
    """The effects that go with `Segments`; `changed` is called after values were lost."""

    def __init__(self, recorder: Recorder, kinds: Sequence[Kind], post: Post, changed: Callable[[], None]) -> None:
        self._recorder, self._kinds, self._post, self._changed = recorder, kinds, post, changed
        self._readers = ThreadPoolExecutor(READS, "transfer queue read")
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
        told = {each.path for each in known}
        for kind in self._kinds:
            kind.sweep(told)

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

    def read(self, columns: Sequence[Column], then: Callable[[list[Frame] | Exception], None]) -> None:
        """Read values in a thread and call `then` with them, or with what went wrong."""
        paths = {each.number: each.path for each in self._segments.known.values()}

        def work() -> None:
            try:
                answer: list[Frame] | Exception = FarReader(paths).read(columns, READ_S)
            except Exception as error:  # noqa: BLE001 - it becomes the answer of whoever asked
                answer = error
            self._post(lambda: self._look_for_losses(paths, answer, then))

        self._readers.submit(work)

    def _look_for_losses(
        self, paths: Mapping[int, str], answer: list[Frame] | Exception, then: Callable[[list[Frame] | Exception], None]
    ) -> None:
        if isinstance(answer, FieldLostError):
            self.missing(list(paths), lambda _: then(answer))
        else:
            then(answer)

    def close(self) -> None:
        """Read nothing more."""
        self._readers.shutdown(wait=False, cancel_futures=True)

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
