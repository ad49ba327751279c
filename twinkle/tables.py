"""Tables that a person reads: where tasks stand, single rows, and counts. rich is loaded here, when one is shown."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from transfer_queue.ledger.explain import Explanation
from transfer_queue.ledger.shape import split_index
from transfer_queue.peeking import Peeked, Row, escaped
from transfer_queue.wire import Stats

LONGEST_NUMBER = 9


def why_table(stands: Sequence[Explanation]) -> RenderableType:
    """Task, needed, ready, and for each reason how many rows and which."""
    if not stands:
        return Text("No task has asked for rows yet, and none was named with tasks=.")
    table = _table("Task", ">Needed", ">Ready", ">Rows", "Why not", "Which")
    for stand in stands:
        style = "green" if stand.is_ready else "yellow"
        head = [Text(_title(stand), style="bold"), _cell(stand.needed), Text(str(stand.ready), style=style)]
        if not stand.reasons:
            table.add_row(*head, "", Text("nothing is missing", style="dim"), "")
        for reason in stand.reasons:
            table.add_row(*head, _cell(reason.rows), _cell(reason.detail), Text(escaped(reason.which), style="dim"))
            head = [Text(), Text(), Text()]
        table.add_section()
    return table


def _title(stand: Explanation) -> str:
    where = "" if stand.step is None else f" (step {stand.step})"
    return escaped(f"{stand.task}{where}")


def peek_table(peeked: Peeked) -> RenderableType:
    """Row by row: its place in its step, where each task stands with it, and its fields."""
    if not peeked.rows:
        return Text("There are no rows.")
    fields = list(dict.fromkeys(name for row in peeked.rows for name in row.fields))
    table = _table(">Row", ">Step", "Group", "Tasks", "Fields")
    for row in peeked.rows:
        place, group = _in_step(row)
        table.add_row(_cell(place), _cell(row.step), _cell(group), _lines(_states(row)), _values(row, fields))
        table.add_section()
    return Group(table, Text(f"{len(peeked.rows)} of {peeked.total} rows", style="dim"))


def _in_step(row: Row) -> tuple[int, str | int]:
    """Its number and its group's, counted from the beginning of its step; a group that was given a name keeps it."""
    partition, place = split_index(row.index)
    if isinstance(row.group, int) and split_index(row.group)[0] == partition:
        return place, split_index(row.group)[1]
    return place, row.group


def _states(row: Row) -> str:
    """A line for each state in which a task stands with it."""
    tasks: dict[str, list[str]] = {}
    for task, state in row.tasks.items():
        tasks.setdefault(state, []).append(task)
    return "\n".join(f"{', '.join(names)}: {state}" for state, names in tasks.items())


def _values(row: Row, fields: Sequence[str]) -> Text:
    """Field after field, on as few lines as they take."""
    parts = []
    for field in fields:
        if field not in row.fields:
            parts.append(Text(f"{escaped(field)} is missing", style="yellow"))
        elif field in row.values:
            parts.append(Text.assemble((f"{escaped(field)}: ", "bold"), _short(row.values[field])))
        else:
            parts.append(Text(escaped(field), style="bold"))
    return Text("  ").join(parts)


def _short(value: str) -> str:
    """A seed by its first digits; anything else as it is."""
    return f"{value[:6]}…" if value.isdigit() and len(value) > LONGEST_NUMBER else value


def stats_table(stats: Stats) -> RenderableType:
    """The counts of the queue, and those of each task."""
    tasks = _table("Task", ">Needed", ">Ready", ">Leased", ">Consumed", ">Dropped", ">Not ready", ">Waiting")
    for task, each in stats.tasks.items():
        counts = (
            each.needed, each.ready, each.leased, each.consumed, sum(each.dropped.values()),
            sum(each.not_ready.values()), each.waiting,
        )  # fmt: skip
        tasks.add_row(_cell(task), *map(_cell, counts))
    steps = f" (steps {stats.partitions[0]} to {stats.partitions[-1]})" if stats.partitions else ""
    limit = "" if stats.capacity_bytes is None else f" of {stats.capacity_bytes:,}"
    lines = (
        f"{len(stats.partitions)} of {stats.partitions_limit} partitions alive{steps}, "
        f"{stats.stored_bytes:,}{limit} bytes stored, {stats.rows_put_total:,} rows put so far\n"
        f"{stats.leases} leases, the oldest {stats.oldest_lease_s:.0f} s old; {stats.waiting_producers} puts wait, "
        f"the first for {stats.longest_producer_wait_s:.0f} s; rows last moved {stats.idle_s:.0f} s ago"
    )
    if stats.held_bytes:
        lines += f"\n{stats.held_bytes:,} freed bytes wait for {stats.held_by!r}, a reader for {stats.held_s:.0f} s"
    text = Text(lines)
    return Group(tasks, text) if stats.tasks else text


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in columns:
        number = name.startswith(">")
        least = None if number else min(8, len(name) + 4)
        table.add_column(name.lstrip(">"), justify="right" if number else "left", overflow="fold", min_width=least)
    return table


def _cell(value: object) -> Text:
    return Text(escaped(str(value)))


def _lines(text: str) -> Text:
    return Text("\n".join(map(escaped, text.split("\n"))))
