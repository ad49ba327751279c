"""``twinkle``: look at a queue while it runs, and at stacks on Kubernetes. A command loads what it needs by itself."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from transfer_queue.errors import ConfigurationError, TransferQueueError
from twinkle import __version__
from twinkle.choices import nearest
from twinkle.errors import ConfigError
from twinkle.kubernetes_commands import add_commands
from twinkle.pipe import into_pipe

if TYPE_CHECKING:
    from rich.console import Console

    from twinkle.queue_source import Direct, Source

READY, UNREACHABLE, BAD_INPUT, NOT_READY, INTERRUPTED = 0, 1, 2, 3, 130
LATEST = "runs/latest"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``twinkle``; ends with 0, 1 (no queue answers), 2 (bad input), 3 (``why``: not ready) or 130 (Ctrl-C).

    With 141 where nobody reads its output any more.
    """
    try:
        with into_pipe():
            options = _parser().parse_args(arguments)
            code = int(options.run_command(options))
    except (ConfigError, ConfigurationError) as error:
        code = _say(str(error), BAD_INPUT)
    except TransferQueueError as error:
        code = _say(str(error), UNREACHABLE)
    except KeyboardInterrupt:
        code = INTERRUPTED
    sys.exit(code)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence; an unknown command names the nearest, and no option may be shortened."""

    def __init__(self, **arguments: Any):
        super().__init__(**{"allow_abbrev": False, **arguments})

    def error(self, message: str) -> NoReturn:
        """End with 2; where the command is missing, its names are said."""
        if message.endswith(" COMMAND") and self._subparsers is not None:
            message = f"name a command: {', '.join(self._subparsers._group_actions[0].choices or ())}"
        self.exit(BAD_INPUT, f"{self.prog}: {message}\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(name) for name in action.choices]
            text = f"{value!r} is no command; there are {', '.join(names)}{nearest(str(value), names)}"
            raise argparse.ArgumentError(None, text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="twinkle", description="Look at a queue while it runs, and at stacks on Kubernetes.")
    parser.add_argument("--version", action="version", version=f"twinkle {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands", parser_class=_Parser)
    why = commands.add_parser(
        "why",
        help="why a task gets no rows",
        description="Where every task stands: needed, ready, and for each reason how many rows and which. "
        "Ends with 0 when all are ready, 3 when one is not, 1 when no queue answers, 2 on bad input.",
    )
    why.add_argument("task", nargs="?", help="only this task")
    _add_places(why).add_argument("--url", help="its HTTP endpoint, such as http://127.0.0.1:9400")
    why.add_argument("--watch", action="store_true", help="show it again and again, until Ctrl-C or the queue's end")
    why.add_argument("--every", type=_seconds, default=1.0, metavar="SECONDS", help="between two looks (default 1)")
    why.set_defaults(run_command=_why)
    queue = commands.add_parser("queue", help="rows and counts of a queue")
    inside = queue.add_subparsers(required=True, metavar="COMMAND", title="commands", parser_class=_Parser)
    peek = inside.add_parser("peek", help="rows, their fields and their state in each task")
    _add_places(peek)
    peek.add_argument("--step", type=int, help="of this global step (default: of all that are alive)")
    peek.add_argument("--limit", type=int, default=20, help="rows at most (default 20)")
    peek.add_argument("--fields", help="show only these values, such as prompt,reward")
    peek.set_defaults(run_command=_peek)
    stats = inside.add_parser("stats", help="counts of the queue and of each task")
    _add_places(stats)
    stats.set_defaults(run_command=_stats)
    add_commands(commands)
    return parser


def _add_places(parser: argparse.ArgumentParser) -> "argparse._MutuallyExclusiveGroup":
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--run", default=None, metavar="FOLDER", help=f"a run's folder (default {LATEST})")
    place.add_argument("--queue", metavar="FILE", help="the file in which twinkle-queue names its queue")
    return place


def _seconds(text: str) -> float:
    with suppress(ValueError):
        if 0.05 <= float(text) <= 3600:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text} is out of range: 0.05 to 3600 seconds")


def _why(options: argparse.Namespace) -> int:
    from twinkle.tables import why_table

    console = _console()
    with closing(_source(options)) as source:
        if options.watch:
            _watch(console, source, options.task, options.every)
        stands = source.stands(options.task)
        console.print(why_table(stands))
        return READY if stands and all(stand.is_ready for stand in stands) else NOT_READY


def _watch(console: "Console", source: "Source", task: str | None, every_s: float) -> NoReturn:
    """Until Ctrl-C, or until the queue is gone, which is an error."""
    from rich.live import Live

    from twinkle.tables import why_table

    interrupted: list[int] = []  # not an exception: one that is raised inside a finalizer is lost
    signal.signal(signal.SIGINT, lambda number, _: interrupted.append(number))
    with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        while not interrupted:
            table = why_table(source.stands(task))
            if live is None:
                console.print(table)
            else:
                live.update(table, refresh=True)
            time.sleep(every_s)
    raise KeyboardInterrupt


def _peek(options: argparse.Namespace) -> int:
    from twinkle.tables import peek_table

    fields = options.fields.split(",") if options.fields is not None else None
    with closing(_direct(options)) as source:
        _console().print(peek_table(source.client.peek(options.step, options.limit, fields)))
    return READY


def _stats(options: argparse.Namespace) -> int:
    from twinkle.tables import stats_table

    console = _console()
    with closing(_direct(options)) as source:
        console.print(stats_table(source.client.stats()), soft_wrap=not console.is_terminal)
    return READY


def _source(options: argparse.Namespace) -> "Source":
    from twinkle.queue_source import Remote

    return Remote(options.url) if options.url is not None else _direct(options)


def _direct(options: argparse.Namespace) -> "Direct":
    from twinkle.queue_source import Direct, file_of_run

    return Direct(Path(options.queue) if options.queue is not None else file_of_run(Path(options.run or LATEST)))


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def _say(text: str, code: int) -> int:
    print(f"twinkle: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
