"""An obviously right queue beside the ledger: a dict of rows, searched from scratch each time."""

from dataclasses import dataclass, field

Key = tuple[str, int | None, str]
TASKS = ("a", "b")
HOLD_S = 300.0


@dataclass
class Row:
    step: int
    serial: int
    group: tuple[int, int]
    fields: set[str]
    roots: frozenset[str]
    states: dict[str, str] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)
    dropped: bool = False
    freed: bool = False

    def state(self, task: str) -> str:
        return self.states.get(task, "dropped" if self.dropped else "free")


@dataclass(eq=False)
class Held:
    task: str
    rows: list[int]
    fields: tuple[str, ...]
    deadline: float
    votes_needed: int = 1
    votes: dict[int, int | None] = field(default_factory=dict)
    written: list[tuple[int, str]] = field(default_factory=list)
    key: Key | None = None
    asks_ack: bool = True
    lost: bool = False


class Model:
    def __init__(self, prompts: int, partitions: int, samples: int, tasks: tuple[str, ...]) -> None:
        self.prompts, self.partitions, self.samples, self.tasks = prompts, partitions, samples, tasks
        self.now = 0.0
        self.rows: dict[int, Row] = {}
        self.held: list[Held] = []
        self.holds: list[tuple[float, str, set[int]]] = []
        self.read: dict[tuple[str, int], set[str]] = {}
        self.producers: dict[tuple[int, str], str] = {}
        self.groups: dict[Key, Held] = {}
        self.complete: set[Key] = set()
        self.retired: dict[int, int] = {}
        self.cleared: dict[int, int] = {}

    def steps(self) -> set[int]:
        return {row.step for row in self.rows.values()}

    def of_step(self, step: int) -> list[Row]:
        return [row for row in self.rows.values() if row.step == step]

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

    def seats(self, step: int) -> int:
        return (self.prompts + self.retired.get(step, 0)) * self.samples

    def possible(self, task: str, needed: int, step: int | None, whole: bool) -> bool:
        if step is None:
            return needed <= self.prompts * self.samples * self.partitions
        gone = [row for row in self.of_step(step) if row.state(task) in ("consumed", "dropped")]
        lost = len({row.group for row in gone}) * self.samples if whole else len(gone)
        return needed <= self.seats(step) - lost

    def set_state(self, task: str, rows: list[int], state: str) -> None:
        for index in rows:
            row = self.rows[index]
            row.states[task] = "dropped" if state == "free" and row.dropped else state
            row.versions.pop(task, None)

    def note_read(self, task: str, rows: list[int], fields: tuple[str, ...]) -> None:
        for index in rows:
            self.read.setdefault((task, self.rows[index].serial), set()).update(fields)

    def write(self, rows: list[int], name: str, held: Held | None) -> None:
        for index in rows:
            self.rows[index].fields.add(name)
            self.rows[index].lost.discard(name)
            self.rows[index].roots -= {name}  # it was lost, and this one can be made anew
            if held is not None:
                held.written.append((index, name))
                self.producers[self.rows[index].serial, name] = held.task

    def hold(self, task: str, rows: list[int]) -> None:
        if self.tasks:
            self.see(task, rows)
            self.holds.append((self.now + HOLD_S, task, set(rows)))

    def see(self, task: str | None, rows: list[int]) -> None:
        for _, holder, unread in self.holds:
            if task in (None, holder):
                unread.difference_update(rows)
        self.holds = [hold for hold in self.holds if hold[2]]

    def consume(self, held: Held) -> None:
        if held.key is not None:
            self.complete.add(held.key)
        self.set_state(held.task, held.rows, "consumed")
        borne = [version for version in held.votes.values() if version is not None]
        for index in held.rows if borne else []:
            self.rows[index].versions[held.task] = max(borne)
        self.held.remove(held)
        if held.key is not None and not held.asks_ack:
            self.hold(held.task, held.rows)

    def vote(self, held: Held, rank: int, version: int | None = None) -> None:
        held.votes.setdefault(rank, version)
        if len(held.votes) == held.votes_needed:
            self.consume(held)

    def end(self, held: Held) -> None:
        self.held.remove(held)
        if held.key is not None:
            self.groups.pop(held.key, None)

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
            for other in TASKS
        )

    def drop(self, rows: list[int]) -> None:
        for row in [self.rows[index] for index in rows]:
            if not row.dropped:
                row.dropped = True
                row.states.update({task: "dropped" for task in TASKS if row.state(task) == "free"})

    def drop_held(self, held: Held) -> None:
        self.set_state(held.task, held.rows, "dropped")
        self.drop(held.rows)
        self.end(held)

    def whole(self, rows: list[int]) -> bool:
        """Whether these rows are whole groups that were put completely and not given up before."""
        groups = {self.rows[index].group for index in rows}
        mine = [index for index, row in self.rows.items() if row.group in groups]
        return sorted(rows) == sorted(mine) and len(mine) == len(groups) * self.samples

    def retire(self, rows: list[int]) -> None:
        for step, _ in {(self.rows[index].step, self.rows[index].group) for index in rows}:
            self.retired[step] = self.retired.get(step, 0) + 1

    def lose(self, rows: list[int], names: set[str]) -> None:
        rows = [index for index in rows if index in self.rows and not self.rows[index].freed]
        lost = {index: names & self.rows[index].fields for index in rows}
        roots = [index for index in rows if lost[index] & self.rows[index].roots]
        going: dict[int, set[str]] = {}
        again: set[tuple[str, int]] = set()
        for index in rows:
            if index not in roots:
                going[index] = set(lost[index])
                while (more := self.spread(index, going[index], again)) - going[index]:
                    going[index] |= more
        self.drop(roots)
        gone = {index: lost[index] | going.get(index, set()) for index in rows}
        for held in list(self.held):
            touched = {(index, name) for index in held.rows for name in gone.get(index, ()) if name in held.fields}
            if touched or any(name in gone.get(index, ()) for index, name in held.written):
                held.lost = True
                self.give_back(held)
        for index in rows:
            self.rows[index].fields -= gone[index]
            self.rows[index].lost |= lost[index]
        for task, index in again:
            if self.rows[index].state(task) == "consumed":
                self.set_state(task, [index], "free")

    def spread(self, index: int, going: set[str], again: set[tuple[str, int]]) -> set[str]:
        """The fields that go with those: whoever makes one anew makes all of its fields anew."""
        row, more = self.rows[index], set()
        for task in TASKS:
            made = {name for name in row.fields - row.roots if self.producers.get((row.serial, name)) == task}
            makes = any(self.producers.get((row.serial, name)) == task for name in going)
            derived = row.state(task) == "consumed" and going & self.read.get((task, row.serial), set())
            if makes or (derived and made):
                again.add((task, index))
                more |= made
        return more

    def rollback(self, version: int) -> dict[str, list[int]]:
        free: set[tuple[str, int]] = set()
        for index, row in self.rows.items():
            for task, bore in list(row.versions.items()):
                if bore > version and not row.freed:
                    self.set_state(task, [index], "free")
                    if row.state(task) == "free":
                        free.add((task, index))
        while kept := {pair for pair in free if any(self.used_by_others(*pair, x) for x in self.made(*pair))}:
            free -= kept
            for task, index in kept:
                self.set_state(task, [index], "consumed")
        for task, index in free:
            self.rows[index].fields -= self.made(task, index)
        for key, held in list(self.groups.items()):
            late = [rank for rank, bore in held.votes.items() if bore is not None and bore > version]
            if late and key in self.complete:
                del self.groups[key]
                self.complete.discard(key)
            for rank in late:
                del held.votes[rank]
        return {task: sorted(i for other, i in free if other == task) for task in {task for task, _ in free}}

    def made(self, task: str, index: int) -> set[str]:
        row = self.rows[index]
        return {name for name in row.fields - row.roots if self.producers.get((row.serial, name)) == task}

    def gone_steps(self, version: int) -> list[int]:
        return sorted(step for step, bore in self.cleared.items() if bore > version)

    def settle(self) -> tuple[set[int], set[int]]:
        """Free what no task in `tasks` needs; the rows that were freed one by one, and the steps that were cleared."""
        freed: set[int] = set()
        steps: set[int] = set()
        if not self.tasks:
            return freed, steps
        kept = {index for held in self.held for index in held.rows} | {i for _, _, unread in self.holds for i in unread}
        for step in self.steps():
            there = {index: row for index, row in self.rows.items() if row.step == step}
            through = {
                i for i, row in there.items() if all(row.state(t) in ("consumed", "dropped") for t in self.tasks)
            }
            if len(through) == self.seats(step) and not through & kept:
                steps.add(step)
                self.forget(step)
            else:
                new = [index for index in through - kept if not self.rows[index].freed]
                self.drop(new)
                for index in new:
                    self.rows[index].freed = True
                freed |= set(new)
        return freed, steps

    def clear(self, step: int) -> None:
        gone = {index for index, row in self.rows.items() if row.step == step}
        for held in [held for held in self.held if gone & set(held.rows)]:
            self.give_back(held)
        self.forget(step)

    def forget(self, step: int) -> None:
        rows = {index: row for index, row in self.rows.items() if row.step == step}
        if not rows:
            return
        borne = [version for row in rows.values() for version in row.versions.values()]
        self.cleared[step] = max([-1, self.cleared.get(step, -1), *borne])
        self.retired.pop(step, None)
        for key in [key for key, held in self.groups.items() if set(rows) & set(held.rows)]:
            del self.groups[key]
            self.complete.discard(key)
        self.see(None, list(rows))
        for index in rows:
            del self.rows[index]
