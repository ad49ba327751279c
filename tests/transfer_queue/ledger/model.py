"""An obviously right queue beside the ledger: a dict of rows, searched from scratch each time."""

from dataclasses import dataclass, field

Key = tuple[str, int | None, str]


@dataclass
class Row:
    step: int
    serial: int
    group: tuple[int, str]
    fields: set[str]
    states: dict[str, str] = field(default_factory=dict)
    dropped: bool = False

    def state(self, task: str) -> str:
        return self.states.get(task, "dropped" if self.dropped else "free")


@dataclass(eq=False)
class Held:
    task: str
    rows: list[int]
    deadline: float
    votes_needed: int = 1
    votes: set[int] = field(default_factory=set)
    written: list[tuple[int, str]] = field(default_factory=list)
    key: Key | None = None
    asks_ack: bool = True


class Model:
    def __init__(self, prompts: int, partitions: int, samples: int) -> None:
        self.prompts, self.partitions, self.samples = prompts, partitions, samples
        self.rows: dict[int, Row] = {}
        self.held: list[Held] = []
        self.read: dict[tuple[str, int], set[str]] = {}
        self.groups: dict[Key, Held] = {}
        self.complete: set[Key] = set()

    def steps(self) -> set[int]:
        return {row.step for row in self.rows.values()}

    def choose(
        self, task: str, fields: tuple[str, ...], needed: int, step: int | None, whole: bool
    ) -> list[int] | None:
        """The first rows, by (step, index), that are free and complete, in whole groups if asked; None if too few."""
        order = sorted(self.rows, key=lambda index: (self.rows[index].step, index))
        ready = [i for i in order if self.rows[i].state(task) == "free" and self.rows[i].fields >= set(fields)]
        ready = [i for i in ready if step in (None, self.rows[i].step)]
        if whole:
            groups = [self.rows[i].group for i in ready]
            ready = [i for i in ready if groups.count(self.rows[i].group) == self.samples]
        return ready[:needed] if len(ready) >= needed else None

    def possible(self, task: str, needed: int, step: int | None, whole: bool) -> bool:
        capacity = self.prompts * self.samples
        if step is None:
            return needed <= capacity * self.partitions
        gone = [row for row in self.rows.values() if row.step == step and row.state(task) in ("consumed", "dropped")]
        lost = len({row.group for row in gone}) * self.samples if whole else len(gone)
        return needed <= capacity - lost

    def set_state(self, task: str, rows: list[int], state: str) -> None:
        for index in rows:
            if index in self.rows:
                self.rows[index].states[task] = state

    def note_read(self, task: str, rows: list[int], fields: tuple[str, ...]) -> None:
        for index in rows:
            self.read.setdefault((task, self.rows[index].serial), set()).update(fields)

    def end(self, held: Held) -> None:
        self.held.remove(held)
        if held.key is not None and held.key not in self.complete:
            self.groups.pop(held.key, None)

    def consume(self, held: Held) -> None:
        if held.key is not None:
            self.complete.add(held.key)
        self.set_state(held.task, held.rows, "consumed")
        self.held.remove(held)

    def vote(self, held: Held, rank: int) -> None:
        held.votes.add(rank)
        if len(held.votes) == held.votes_needed:
            self.consume(held)

    def give_back(self, held: Held) -> None:
        used = {index for index, name in held.written if self.used_by_others(held.task, index, name)}
        for index, name in held.written:
            if index not in used:
                self.rows[index].fields.discard(name)
        self.set_state(held.task, [index for index in held.rows if index in used], "consumed")
        self.set_state(held.task, [index for index in held.rows if index not in used], "free")
        self.end(held)

    def used_by_others(self, task: str, index: int, name: str) -> bool:
        row = self.rows[index]
        return any(
            other != task
            and row.state(other) in ("leased", "consumed")
            and name in self.read.get((other, row.serial), ())
            for other in ("a", "b")
        )

    def drop(self, held: Held) -> None:
        self.set_state(held.task, held.rows, "dropped")
        for index in held.rows:
            row = self.rows[index]
            row.dropped = True
            for task in ("a", "b"):
                if row.state(task) == "free":
                    row.states[task] = "dropped"
        self.end(held)

    def clear(self, step: int) -> None:
        gone = {index for index, row in self.rows.items() if row.step == step}
        for held in [held for held in self.held if gone & set(held.rows)]:
            self.give_back(held)
        for key in [key for key, held in self.groups.items() if gone & set(held.rows)]:
            del self.groups[key]
            self.complete.discard(key)
        for index in gone:
            del self.rows[index]
