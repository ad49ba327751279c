"""``twinkle-queue``: a queue on its own, for processes that attach to it."""

from contextlib import ExitStack
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from transfer_queue import TransferQueueClient, TransferQueueController, TransferQueueError
from transfer_queue.info_file import published, read_info
from twinkle.entrypoints.shell import failed, run_program, typed
from twinkle.errors import ConfigError, RunError
from twinkle.loop.stop import StopRequested, StopSignals
from twinkle.metrics import served
from twinkle.queue_config import QueueProgramConfig

NAME = "twinkle-queue"
ASK_S = 1.0


def main() -> None:
    """Run ``twinkle-queue``; ends the process with 1 (the queue died), 2 (bad input), 130 (Ctrl-C) or 143 (SIGTERM)."""
    run_program(
        NAME,
        run_queue,
        schema=QueueProgramConfig,
        schema_name="queue_program_schema",
        config_name="twinkle_queue",
        writes="queue.info_file",
    )


def run_queue(settings: DictConfig) -> int:
    """Keep a queue until a signal ends it; whatever ends it, nothing is left behind."""
    try:
        with StopSignals(), ExitStack() as stack:
            config = typed(settings, QueueProgramConfig)
            config.validate()
            raise _serve(config, stack)
    except StopRequested as stopped:
        return stopped.exit_code
    except Exception as error:  # noqa: BLE001 - the boundary of the program: every failure becomes a sentence and a code
        return failed(NAME, error, "debug", debug=bool(OmegaConf.select(settings, "debug", default=False)))


def _serve(config: QueueProgramConfig, stack: ExitStack) -> RunError:
    """Start the queue, say where it is, and return what to say when it has died."""
    console, file = Console(highlight=False, soft_wrap=True), Path(config.queue.info_file).absolute()
    _refuse_second(file)
    controller = stack.enter_context(TransferQueueController.start(**config.queue.arguments()))
    if config.metrics.port:
        info = controller.get_info()
        endpoint = stack.enter_context(served(config.metrics.host, config.metrics.port, info))
        console.print(f"http://{config.metrics.host}:{endpoint.port} has /metrics, /readyz, /why and /v1/status")
    stack.enter_context(published(file, controller.get_info()))
    console.print(f"The queue runs (process {controller.pid}). Clients find it by {file}", markup=False)
    console.print(f"  twinkle why --queue {file}", markup=False)
    code, journal = controller.wait(), config.queue.journal_dir
    rows = "and its rows with it" if journal is None else f"and was not started again; its rows are in {journal}"
    return RunError(f"The queue's process {controller.pid} ended with code {code}, {rows}.")


def _refuse_second(file: Path) -> None:
    """ConfigError if a queue that answers has said so in this file; a file that a dead one left is replaced."""
    if not file.exists():
        return
    try:
        with TransferQueueClient(NAME, read_info(file), call_timeout_s=ASK_S) as client:
            client.stats()
    except TransferQueueError:
        return
    raise ConfigError(f"queue.info_file={str(file)!r} names a queue that is running: choose another file.")


if __name__ == "__main__":
    main()
