"""Segments that are storage actors of Ray: each is watched by a thread, which hears of its death at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence, Set

from transfer_queue.errors import FieldError, FieldLostError
from transfer_queue.segment_places import Then
from transfer_queue.storage.place import is_actor, place_of
from transfer_queue.storage.segments import Segment
from transfer_queue.transport.link import Post

LOOK_S = 10.0
"""How long a storage actor may take to show that it lives, after somebody could not read from it."""
PAUSE_S = 0.5
"""Before a storage actor that cannot be reached at the moment is watched again."""


class SegmentActors:
    """The storage actors of the run whose `namespace` it is (None: a controller without Ray, which has none)."""

    def __init__(self, namespace: str | None, post: Post) -> None:
        self._namespace, self._post = namespace, post

    def has(self, path: str) -> bool:
        return is_actor(path)

    def check(self, path: str, size: int) -> None:
        """`FieldError` unless this is the path of a storage actor of this run."""
        if place_of(path).namespace != self._namespace:
            raise FieldError(f"{path!r} is no storage actor of this queue: they are in namespace {self._namespace}")

    def watch(self, segment: Segment, lost: Then) -> None:
        """Wait in a thread for the actor's death; without Ray it is dead already."""
        threading.Thread(target=self._stay_with, args=(segment, lost), name="watch storage", daemon=True).start()

    def abandoned(self, segment: Segment) -> bool:
        """Never: a storage actor writes as long as it lives."""
        return False

    def missing(self, segments: Sequence[Segment], then: Then) -> None:
        """Those that are dead."""

        def look() -> None:
            dead = [each for each in segments if self._namespace is None or not _lives(each.path)]
            self._post(lambda: then(dead))

        threading.Thread(target=look, name="look at storage", daemon=True).start()

    def sweep(self, told: Set[str]) -> None:
        """Nothing: an actor belongs to its run, whoever knows of it."""

    def remove(self, segment: Segment) -> None:
        """Nothing is left of a dead actor."""

    def _stay_with(self, segment: Segment, lost: Then) -> None:
        if self._namespace is not None:
            _wait_for_end(segment.path)
        self._post(lambda: lost([segment]))


def _wait_for_end(path: str) -> None:
    """Return when the actor is dead."""
    import ray

    from transfer_queue.storage.storage_actor import STAY_S

    while True:
        try:
            actor = place_of(path).handle()
            while True:
                ray.get(actor.stay.remote(), timeout=2 * STAY_S)
        except (ray.exceptions.ActorDiedError, FieldLostError):
            return
        except ray.exceptions.RayError:
            time.sleep(PAUSE_S)  # it cannot be reached, which says nothing


def _lives(path: str) -> bool:
    """Whether the actor is there; one that cannot be reached may be, so it is."""
    import ray

    try:
        ray.get(place_of(path).handle().where.remote(), timeout=LOOK_S)
    except (ray.exceptions.ActorDiedError, FieldLostError):
        return False
    except ray.exceptions.RayError:
        return True
    return True
