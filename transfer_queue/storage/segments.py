"""The files and blocks that producers' values lie in: who owns each, what of it is free again, when it may go.

Pure bookkeeping. A range that was freed while somebody still copies out of it is handed back only after that.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from transfer_queue.errors import FieldError, FieldLostError
from transfer_queue.storage.spans import Spans

Range = tuple[int, int, int]
"""Segment, offset, bytes."""


@dataclass(slots=True, eq=False)
class Segment:
    """One file of values. `live` counts the bytes of rows that are there; `orphan`: nobody writes into it any more.

    `client` is who attached it ("": known since before that was noted), `read_until` the first read that began after
    something was freed there last. `taken` are the bytes that are not the producer's to write: they hold values, or
    were freed and not given back.
    """

    number: int
    path: str
    size: int
    owner: int
    live: int = 0
    orphan: bool = False
    free: list[tuple[int, int]] = field(default_factory=list)
    read_until: int = 0
    client: str = ""
    taken: Spans = field(default_factory=Spans)


@dataclass(frozen=True, slots=True)
class Read:
    """Somebody copies, or has mapped: the `secret` that ends it, who it is for people, and since when (clock)."""

    reader: object
    secret: int
    name: str
    since: float


class Segments:
    """All segments of a queue by number, and the reads that are under way.

    A read holds back all that is freed while it lasts, in every segment: `held_bytes`.
    """

    def __init__(self) -> None:
        self.known: dict[int, Segment] = {}
        self.reads: OrderedDict[int, Read] = OrderedDict()
        self.held_bytes = 0
        self._held: deque[tuple[int, Range]] = deque()
        self.next_segment, self._next_read = 0, 0

    def attach(self, path: str, size: int, owner: int, client: str = "") -> int:
        """A new segment; its number. `FieldError` if it is one already: it would be removed under its values."""
        for each in self.known.values():
            if each.path == path:
                raise FieldError(f"{path!r} is segment {each.number} already: a segment is attached once")
        number = self.next_segment
        self.next_segment += 1
        self.known[number] = Segment(number, path, size, owner, client=client)
        return number

    def check_client(self, numbers: Iterable[int], client: str, *, shared: Callable[[str], bool] | None = None) -> None:
        """`FieldError` for a segment that another client attached, unless its path is `shared`."""
        for number in numbers:
            segment = self.known.get(number)
            if segment is None or segment.client in ("", client) or (shared is not None and shared(segment.path)):
                continue
            raise FieldError(
                f"segment {number} is of client {segment.client!r}, not of {client!r}: use one of your own"
            )

    def check(self, ranges: Iterable[Range]) -> None:
        """`FieldError` unless these bytes are inside segments, and each the producer's to put, once.

        `FieldLostError` if the owner of one has died.
        """
        before = (-1, 0)
        for number, offset, size in sorted(ranges):
            segment = self.known.get(number)
            if not 0 <= number < self.next_segment:
                raise FieldError(f"segment {number} is not attached to this queue")
            if segment is None or segment.orphan:
                raise FieldLostError(f"segment {number} is gone: whoever wrote into it has ended")
            if offset + size > segment.size:
                raise FieldError(f"{size} bytes at {offset} reach past the {segment.size} bytes of segment {number}")
            if size and ((number, offset) < before or segment.taken.meets(offset, offset + size)):
                raise FieldError(
                    f"{size} bytes at {offset} of segment {number} are not the producer's: values lie there, or did "
                    "and were not given back; put values where nothing lies"
                )
            before = max(before, (number, offset + size))

    def fill(self, number: int, offset: int, size: int) -> None:
        """Rows came to lie there."""
        if size:
            self.known[number].live += size
            self.known[number].taken.add(offset, offset + size)

    def free(self, ranges: Iterable[Range]) -> None:
        """Rows that lay there are gone; their bytes can be written again once nobody copies them."""
        for where in ranges:
            segment = self.known.get(where[0])
            if segment is None or not where[2]:
                continue  # an empty value has nothing to give back, and would be offered for ever
            segment.live -= where[2]
            segment.read_until = self._next_read
            if self.reads:
                self._held.append((self._next_read, where))
                self.held_bytes += where[2]
            else:
                segment.free.append(where[1:])

    def begin_read(self, reader: object, secret: int, name: str = "", since: float = 0.0) -> int:
        """Somebody begins to copy; the token to end it with, which nobody else can guess (`secret` has 31 bits)."""
        number = self._next_read
        self._next_read += 1
        self.reads[number] = Read(reader, secret, name, since)
        return number << 31 | secret

    def end_read(self, token: int) -> None:
        """The copy is made; a token of no read is passed over."""
        number, secret = token >> 31, token & 0x7FFFFFFF
        if number in self.reads and self.reads[number].secret == secret:
            self._end(number)

    def _end(self, number: int) -> None:
        del self.reads[number]
        oldest = self._oldest_read()
        while self._held and self._held[0][0] <= oldest:
            _, (number, offset, size) = self._held.popleft()
            self.held_bytes -= size
            if number in self.known:
                self.known[number].free.append((offset, size))

    def _oldest_read(self) -> int:
        return next(iter(self.reads), self._next_read)

    def holder(self) -> Read | None:
        """The read that holds back what is held, and has for the longest time."""
        return next(iter(self.reads.values())) if self._held else None

    def reads_of(self, reader: object) -> list[int]:
        """The numbers of its reads."""
        return [number for number, read in self.reads.items() if read.reader == reader]

    def end_reads_of(self, reader: object) -> None:
        """Whoever read is gone."""
        for number in self.reads_of(reader):
            self._end(number)

    def reusable(self, numbers: Sequence[int]) -> list[Range]:
        """What of these segments may be written again and was not given out yet; neighbours as one range."""
        found: list[Range] = []
        for number in dict.fromkeys(numbers):
            segment = self.known.get(number)
            if segment is None or not segment.free:
                continue
            segment.free.sort()
            for offset, size in segment.free:
                if found and found[-1][0] == number and found[-1][1] + found[-1][2] == offset:
                    found[-1] = (number, found[-1][1], found[-1][2] + size)
                else:
                    found.append((number, offset, size))
        return found

    def all_free(self, segment: Segment) -> list[tuple[int, int]]:
        """What of a segment is free, held back for a reader or not."""
        return segment.free + [where[1:] for _, where in self._held if where[0] == segment.number]

    def give(self, ranges: Sequence[Range]) -> None:
        """These ranges were handed to their owner. Others stay: a replay knows no readers, who had held them back."""
        for number in {where[0] for where in ranges}:
            given = sorted(where[1:] for where in ranges if where[0] == number)
            starts = [offset for offset, _ in given]
            segment = self.known[number]
            segment.free = [each for each in segment.free if not _inside(each, given, starts)]
            for offset, size in given:
                segment.taken.cut(offset, offset + size)

    def abandon(self, numbers: Iterable[int]) -> None:
        """The owner writes no more into these."""
        for number in numbers:
            if number in self.known:
                self.known[number].orphan = True

    def removable(self) -> list[Segment]:
        """Segments that nobody writes into and whose last row is gone."""
        oldest = self._oldest_read()
        return [each for each in self.known.values() if each.orphan and each.live == 0 and each.read_until <= oldest]

    def remove(self, number: int) -> None:
        """Forget a segment whose file is gone."""
        self.known.pop(number, None)


def _inside(place: tuple[int, int], given: list[tuple[int, int]], starts: list[int]) -> bool:
    at = bisect_right(starts, place[0]) - 1
    return at >= 0 and place[0] < sum(given[at])
