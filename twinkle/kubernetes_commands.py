"""The commands of ``twinkle`` for stacks on Kubernetes; twinkle_operator is loaded when one of them runs."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinkle.errors import ConfigError
from twinkle.extras import missing

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

DAY_S = 86_400
NAMESPACES = ("kuberay", "operator", "prometheus")


def add_commands(commands: "Commands") -> None:
    """Add them to the parser of ``twinkle``."""
    _add_validate(commands)
    _add_render(commands)
    _add_status(commands)
    _add_fetch(commands)


def _add_validate(commands: "Commands") -> None:
    validate = commands.add_parser(
        "validate",
        help="what is wrong with the TrainingStacks in YAML files",
        description="Finds offline what the API server and the operator would refuse, and says file and line. "
        "Ends with 0 (warnings alone, too) or 2.",
    )
    validate.add_argument("files", nargs="+", metavar="FILE", help="YAML with one stack or more; - for standard input")
    validate.add_argument(
        "--from", dest="before", metavar="FILE", help="the stacks as they are now: what an update may not change, too"
    )
    validate.set_defaults(run_command=_validate)


def _validate(options: argparse.Namespace) -> int:
    with _extra("validate"):
        from twinkle.entrypoints.stack_overrides import refused
        from twinkle_operator.commands.validate import validate
    return validate(options.files, options.before, refused)


def _add_render(commands: "Commands") -> None:
    render = commands.add_parser(
        "render",
        help="the RayCluster, RayJob and NetworkPolicy that the operator makes of a TrainingStack",
        description="Prints as YAML exactly what the operator would apply for the first attempt of each stack, with "
        "the Hydra overrides of its driver. What only the cluster knows, the uids, is written as zeros. "
        "Ends with 0, or with 2 on a stack that twinkle validate refuses.",
    )
    render.add_argument("files", nargs="+", metavar="FILE", help="YAML with one stack or more; - for standard input")
    render.add_argument("--overrides", action="store_true", help="only the overrides, one a line")
    for who in NAMESPACES:
        render.add_argument(
            f"--{who}-namespace", metavar="NAME", help=f"namespace of {who}, which the NetworkPolicy lets in"
        )
    render.set_defaults(run_command=_render)


def _render(options: argparse.Namespace) -> int:
    with _extra("render"):
        from twinkle_operator.commands.render import render
    names = {f"{who}_namespace": getattr(options, f"{who}_namespace") for who in NAMESPACES}
    given = {key: name for key, name in names.items() if name is not None}
    return render(options.files, only_overrides=options.overrides, namespaces=given)


def _add_status(commands: "Commands") -> None:
    status = commands.add_parser(
        "status",
        help="how a TrainingStack on Kubernetes is",
        description="Conditions, queue, progress and pods of one stack. Ends with 0 when it is Ready or Complete, 3 "
        "when it is not, 2 when it cannot be read.",
    )
    _add_place(status)
    status.set_defaults(run_command=_status)


def _status(options: argparse.Namespace) -> int:
    with _extra("status"):
        from twinkle_operator.commands.status import status
        from twinkle_operator.errors import OperatorError
    try:
        return status(options.name, options.namespace, options.context)
    except OperatorError as error:
        raise ConfigError(str(error)) from error


def _add_fetch(commands: "Commands") -> None:
    fetch = commands.add_parser(
        "fetch",
        help="the run folder of a TrainingStack on Kubernetes",
        description="Copies the run folder of a stack to this machine: from its volume by a pod that is there only for "
        "that, or, without run.volume, from its head. What is there already is replaced once all has come. "
        "A run that leaves less than 1 GiB of this machine's disk free is refused.",
    )
    _add_place(fetch)
    fetch.add_argument("--to", type=Path, default=Path("runs"), metavar="FOLDER", help="where to put it (default runs)")
    fetch.add_argument(
        "--deadline",
        type=_seconds,
        default=900,
        metavar="SECONDS",
        help="in which all of it has to come, the reader pod's start too (default 900)",
    )
    fetch.set_defaults(run_command=_fetch)


def _seconds(text: str) -> int:
    if text.isdecimal() and len(text) <= len(str(DAY_S)) and 1 <= int(text) <= DAY_S:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is out of range: a whole number of seconds, 1 to {DAY_S}")


def _fetch(options: argparse.Namespace) -> int:
    with _extra("fetch"):
        from twinkle_operator.commands.fetch import fetch
        from twinkle_operator.errors import OperatorError
    try:
        print(fetch(options.name, options.namespace, options.context, options.to, deadline=options.deadline))
    except OperatorError as error:
        raise ConfigError(str(error)) from error
    return 0


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="the stack")
    parser.add_argument("-n", "--namespace", help="its namespace (default: that of the kubeconfig's context)")
    parser.add_argument("--context", help="context of the kubeconfig (default: the current one)")


@contextmanager
def _extra(command: str) -> Iterator[None]:
    """Say in one sentence that the extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(missing(str(error.name), f"twinkle {command}", "'twinkle-rl[operator]'")) from error
