"""Bad messages by the hundred thousand against a whole service: `python -m tests.transfer_queue.fuzz`.

Three kinds: bytes that are no message, valid messages with one value of another type, and valid messages with one value
changed so that the envelope still takes it. Pickles lie in every field that takes bytes or text.
"""

import argparse
import os
import pickle
import random
import resource
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from transfer_queue import wire
from transfer_queue.engine import Settings, open_queue
from transfer_queue.errors import TransferQueueError
from transfer_queue.ledger import QueueShape
from transfer_queue.ledger.counts import count, recount
from transfer_queue.process import registry_of
from transfer_queue.service import Service

PROMPT = wire.Column("prompt", wire.OBJECT, [], [2, 2])
NUMBERS = wire.Column("numbers", "int64", [(2,)], [])
DP = {"dp_rank": 0, "dp_size": 1, "dp_group_id": "g"}
FIRED = "TRANSFER_QUEUE_FUZZ_FIRED"


class Bomb:
    """Unpickling it leaves a mark."""

    def __reduce__(self) -> Any:
        return os.putenv, (FIRED, "1")


BOMB = pickle.dumps(Bomb())
WORDS = [
    "",
    "x",
    "train",
    "prompt",
    "\0" * 9,
    "é" * 200,
    "os:system",
    "builtins:eval",
    BOMB.decode("latin1"),
    "9" * 5000,
]
NUMBERS_TRIED = [0, 1, -1, 2, 7, 2**31, 2**32, -(2**31), 2**63 - 1, -(2**63), 10**12]
FLOATS = [0.0, -1.0, 1e-9, 1e9, 1e308, float("inf"), float("-inf"), float("nan")]


def valid() -> list[tuple[wire.Body, list[bytes]]]:
    """One good request of every kind."""
    texts, numbers = b"\xa1a\xa1b", bytes(32)
    return [
        (wire.Put(2, [PROMPT], step=0), [texts]),
        (wire.Put(2, [PROMPT, NUMBERS], step=1, group_ids=["a", "b"], timeout_s=0.0), [texts + numbers]),
        (wire.Put(2, [NUMBERS], indexes=[0, 1], lease=1), [numbers]),
        (wire.Put(2, [NUMBERS], extents=[(0, 64)]), []),
        (wire.GetMeta("train", ["prompt"], 2, 0, False, None, 1.0, 0.0), []),
        (wire.GetMeta("train", ["prompt"], 2, None, True, DP, None, 0.0), []),
        (wire.GetData([0, 1], ["prompt"]), []),
        (wire.EndRead(5), []),
        (wire.Attach("/dev/shm/x", 4096), []),
        (wire.Detach([0]), []),
        (wire.Recycle([0, 1], 0.0), []),
        (wire.Locate([0]), []),
        (wire.Lost([0]), []),
        (wire.Ack(1, 0, 3), []),
        (wire.Release(1), []),
        (wire.Extend(1, 2.0), []),
        (wire.Drop(1, "reason"), []),
        (wire.Clear(3), []),
        (wire.Rollback(2), []),
        (wire.Checkpoint("/nowhere/x"), []),
        (wire.Why("train"), []),
        (wire.GetStats(), []),
        (wire.Survey("train"), []),
        (wire.Peek(0, 5, ["prompt"]), []),
    ]  # fmt: skip


def other(random: random.Random, value: Any, *, same_type: bool) -> Any:
    """Another value for this one; of the same type if the envelope shall still take it."""
    if not same_type:
        return random.choice([None, True, 1.5, -7, "text", BOMB, [], {}, [[1]], {"a": BOMB}])
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice(NUMBERS_TRIED) if random.random() < 0.7 else random.getrandbits(random.randint(1, 63))
    if isinstance(value, float):
        return random.choice(FLOATS)
    if isinstance(value, str):
        return random.choice(WORDS)
    if isinstance(value, list):
        return random.choice([[], value * 2, value[:1], value * 1000])
    return random.choice(NUMBERS_TRIED)


def places(value: Any, at: tuple[int, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Where values lie in a decoded message."""
    if isinstance(value, list):
        for i, each in enumerate(value):
            yield (*at, i)
            yield from places(each, (*at, i))


def mutated(random: random.Random, message: Any, *, same_type: bool) -> Any:
    """The message with one value of its body changed."""
    chosen = random.choice(
        [place for place in places(message) if place[0] == 2 and place != (2,) and place != (2, 0)] or [(0,)]
    )
    where = message
    for i in chosen[:-1]:
        where = where[i]
    where[chosen[-1]] = other(random, where[chosen[-1]], same_type=same_type)
    return message


class FakeLink:
    """A connection that remembers what was sent last."""

    key = 1

    def __init__(self) -> None:
        self.sent: Sequence[wire.Frame] = ()
        self.replies = 0

    def send(self, parts: Sequence[wire.Frame]) -> bool:
        self.sent = parts
        self.replies += 1
        return True

    def alive(self) -> bool:
        return True

    def close(self) -> None:
        raise AssertionError("a service closes no connections")


def fresh_service() -> Service:
    """A queue behind no socket."""
    settings = Settings(shape=QueueShape(4, 2, 2))
    registry = registry_of(settings.shape, None, {})
    return open_queue(settings, registry, lambda work: work(), lambda error: sys.exit(f"the queue gave up: {error}"))


class Good:
    """A client that minds its own business while others send nonsense."""

    def __init__(self, service: Service) -> None:
        self.service, self.link, self.sequence = service, FakeLink(), 0

    def ask(self, body: wire.Body, *frames: bytes) -> Any:
        """The reply; raises what a client would raise."""
        self.sequence += 1
        self.service.received(self.link, [wire.encode(wire.Request(self.sequence, "good", body, 77)), *frames])
        self.service.settle()
        reply = wire.decode_reply(self.link.sent[0]).body
        assert not isinstance(reply, wire.Failure), reply.message
        return reply

    def cycle(self) -> None:
        """Put, lease, read and acknowledge one group; whatever bad clients put, or wait to put, is cleared away."""
        for _ in range(1000):
            for step in [partition.step for partition in self.service.ledger.steps.in_order()]:
                self.ask(wire.Clear(step, True))
            if not self.service.ledger.steps.alive:
                break
        rows = self.ask(wire.Put(2, [PROMPT], step=5), b"\xa1a\xa1b")
        batch = self.ask(wire.GetMeta("good", ["prompt"], 2, 5, True, None, 60.0, 0.0))
        assert batch.indexes == rows.indexes
        self.ask(wire.GetData(batch.indexes, ["prompt"]))
        assert self.link.sent[1] == b"\xa1a\xa1b"
        self.ask(wire.Ack(batch.lease))


def run(messages: int, seed: int, every: int = 1000) -> Counter[str]:
    """Send so many; counts by what became of them. Raises if anything but a typed answer did."""
    rng, service, counts = random.Random(seed), fresh_service(), Counter[str]()
    good, bad = Good(service), FakeLink()
    kinds = valid()
    for number in range(messages):
        body, frames = kinds[number % len(kinds)]
        data = wire.encode(wire.Request(number + 1, "bad", body, rng.getrandbits(40)))
        kind = ("noise", "type", "value", "value", "value")[number % 5]
        if kind == "noise":
            raw = bytearray(data)
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            data = rng.choice([bytes(raw), data[: rng.randrange(len(data))], BOMB, rng.randbytes(40), b""])
        else:
            message = mutated(rng, msgspec.msgpack.decode(data), same_type=kind == "value")
            data = msgspec.msgpack.encode(message)
        frames = rng.choice([frames, frames, [], [BOMB], [*frames, BOMB]])
        counts["takes the envelope"] += _decodes(data)
        service.received(bad, [data, *frames])
        service.settle()
        counts["messages"] += 1
        if number % every == 0:
            service.tick()
            service.settle()
            good.cycle()
            _check_counts(service)
    assert FIRED not in os.environ
    assert "RequestError" not in service.serving.answers.stats().errors  # an error that nobody foresaw
    counts["replies"] = bad.replies
    return counts


def _check_counts(service: Service) -> None:
    """Whether what is counted at each event is what the rows say."""
    for partition in service.ledger.steps.alive.values():
        for task in partition.tasks:
            assert count(service.ledger, partition, task) == recount(service.ledger, partition, task)


def _decodes(data: bytes) -> bool:
    try:
        wire.decode_request(data)
    except TransferQueueError:
        return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    run(20_000, arguments.seed)  # so that what grows at first has grown
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = run(arguments.messages, arguments.seed + 1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{dict(counts)}; the process grew by {grown / 1024:.1f} MiB")
    return int(grown > 64 * 1024 or counts["takes the envelope"] < counts["messages"] / 2)


if __name__ == "__main__":
    sys.exit(main())
