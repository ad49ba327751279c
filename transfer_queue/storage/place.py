"""How the actors of a run are named, and how a storage actor is a segment. Imports Ray only where it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transfer_queue.errors import FieldLostError

CONTROLLER = "controller"
"""The name of the controller's actor in the namespace of its run."""
SCHEME = "ray:"
ADDRESSES = 1 << 62
"""The size of a segment that is a storage actor: addresses, not bytes."""


def namespace_of(run: str) -> str:
    """The Ray namespace of the actors of a run."""
    return f"twinkle-{run}"


@dataclass(frozen=True, slots=True)
class Place:
    """Which actor a segment is: `ray:<namespace>/<name>/<id>`. A later actor of that name is another segment."""

    namespace: str
    name: str
    actor_id: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.namespace}/{self.name}/{self.actor_id}"

    def handle(self) -> Any:
        """The actor; `FieldLostError` if it is gone."""
        import ray

        try:
            found = ray.get_actor(self.name, self.namespace)
        except ValueError:
            found = None
        if found is None or found._actor_id.hex() != self.actor_id:
            raise FieldLostError(f"the storage actor {self.name} of {self.namespace} is gone, and its values with it")
        return found


def is_actor(path: str) -> bool:
    """Whether a segment of that path is a storage actor."""
    return path.startswith(SCHEME)


def place_of(path: str) -> Place:
    """The place that the path of a segment means; `FieldLostError` if it means none."""
    words = path.removeprefix(SCHEME).split("/")
    if not is_actor(path) or len(words) != 3:
        raise FieldLostError(f"segment {path!r} is no storage actor: it was lost with an earlier controller")
    return Place(*words)
