"""`python -m twinkle_operator`: run the operator until SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import Sequence

from twinkle_operator import handlers, logs, poller
from twinkle_operator.errors import OperatorError
from twinkle_operator.lifecycle import Operator, Options
from twinkle_operator.settings import Settings

log = logging.getLogger("twinkle_operator")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m twinkle_operator", description=__doc__)
    default, settings = Options(), Settings()
    add = parser.add_argument
    add(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="watch this namespace; may be repeated (default: the whole cluster)",
    )
    add("--port", type=int, default=default.port, help="of /healthz, /readyz and /metrics (default: %(default)s)")
    add("--log-format", choices=("text", "json"), default="text")
    add("--log-level", choices=("DEBUG", "INFO", "WARNING", "ERROR"), default="INFO")
    add(
        "--inactivity",
        type=float,
        default=default.inactivity,
        metavar="SECONDS",
        help="of a watch before it is opened anew; after twice that /healthz fails (default: %(default)g)",
    )
    add("--resync", type=float, default=default.resync, metavar="SECONDS", help="between two looks at everything")
    add(
        "--status-address",
        default=poller.ADDRESS,
        metavar="URL",
        help="where a head serves /v1/status, with {cluster} and {namespace} (default: %(default)s)",
    )
    for name in ("kuberay", "operator", "prometheus"):
        field = f"{name}_namespace"
        text = f"let through to the pods of stacks by their NetworkPolicy (default: {getattr(settings, field)})"
        add(f"--{name}-namespace", default=getattr(settings, field), metavar="NAME", help=text)
    return parser


def options(arguments: Sequence[str] | None = None) -> tuple[Options, argparse.Namespace]:
    """What the command line says."""
    said = _parser().parse_args(arguments)
    return (
        Options(
            namespaces=tuple(said.namespace),
            port=said.port,
            inactivity=said.inactivity,
            resync=said.resync,
            status_address=said.status_address,
            settings=Settings(
                kuberay_namespace=said.kuberay_namespace,
                operator_namespace=said.operator_namespace,
                prometheus_namespace=said.prometheus_namespace,
            ),
        ),
        said,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 0 after a signal, 1 after an error that is said in one line."""
    chosen, said = options(arguments)
    logs.set_up(said.log_format, said.log_level)
    handlers.quiet()
    try:
        asyncio.run(_run(chosen))
    except (OperatorError, OSError) as error:
        log.error("%s", error)
        return 1
    return 0


async def _run(chosen: Options) -> None:
    where = ", ".join(chosen.namespaces) or "all namespaces"
    log.info("watching %s; /healthz, /readyz and /metrics on port %d", where, chosen.port)
    await Operator(chosen).run()
