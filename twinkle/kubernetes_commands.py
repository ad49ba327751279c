"""The commands of ``twinkle`` for stacks on Kubernetes; twinkle_operator is loaded when one of them runs."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from twinkle.errors import ConfigError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[Any]

NAMESPACES = ("kuberay", "operator", "prometheus")


def add_commands(commands: "Commands") -> None:
    """Add them to the parser of ``twinkle``."""
    _add_validate(commands)
    _add_render(commands)


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
        from twinkle_operator.validate.command import validate
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
        from twinkle_operator.render_command import render
    names = {f"{who}_namespace": getattr(options, f"{who}_namespace") for who in NAMESPACES}
    given = {key: name for key, name in names.items() if name is not None}
    return render(options.files, only_overrides=options.overrides, namespaces=given)


@contextmanager
def _extra(command: str) -> Iterator[None]:
    """Say in one sentence that the extra is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"twinkle {command} needs the package {error.name}: pip install 'twinkle-rl[operator]'."
        ) from error
