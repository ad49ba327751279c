"""The engine's process: ``python -m twinkle.sampler.vllm.process FD`` serves one sampler over an inherited socket.

It is a process of its own because vLLM replaces torch.set_num_threads, sets global random generators and starts
torch.distributed, and because a process can be replaced when it dies. It ends when its sampler's end of the socket
closes.
"""

import contextlib
import gc
import os
import sys
import time
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from twinkle.errors import TwinkleError
from twinkle.sampler.vllm.messages import Add, Command, Done, Drop, Refused, Settings

if TYPE_CHECKING:
    from twinkle.sampler.vllm.core import Core

# A processor that fell asleep answers a call a millisecond late: look for the next one so long before waiting for it.
LOOK_S = 0.005
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine's core is in this process
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # the other one has no sampler that can be replaced
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


def main() -> None:
    """Start an engine with the settings that come first, then serve."""
    connection = Connection(int(sys.argv[1]))
    settings: Settings = connection.recv()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    core = _start(settings, connection)
    if core is None:
        return
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the sampler is gone
        _serve(core, connection)
    core.close()
    os._exit(0)  # the interpreter would take seconds to take vLLM apart


def _start(settings: Settings, connection: Connection) -> "Core | None":
    try:
        from twinkle.sampler.vllm.core import Core

        core = Core(settings)
    except Exception as error:  # noqa: BLE001  whatever vLLM raises is told to the sampler, which raises it
        connection.send(_refusal(error))
        return None
    # What is there now stays: a collection of all of it would hold up a step for a tenth of a second.
    gc.collect()
    gc.freeze()
    connection.send(core.ready)
    return core


def _serve(core: "Core", connection: Connection) -> None:
    while True:
        while _heard(connection, wait=not core.busy):
            _handle(core, connection)
        if ended := core.step():
            connection.send(ended)


def _heard(connection: Connection, *, wait: bool) -> bool:
    """Whether a message, or the end, has come; with ``wait`` it has."""
    asleep = time.monotonic() + LOOK_S
    while not connection.poll(0):
        if not wait:
            return False
        if time.monotonic() > asleep:
            return connection.poll(None)
        os.sched_yield()
    return True


def _handle(core: "Core", connection: Connection) -> None:
    message = connection.recv()
    if isinstance(message, Add):
        core.add(message.jobs)
    elif isinstance(message, Drop):
        core.drop(message.jobs, message.adapters)
    elif isinstance(message, Command):
        try:
            getattr(core, message.method)(*message.args)
        except Exception as error:  # noqa: BLE001  it is raised where the command was given
            connection.send(_refusal(error))
        else:
            connection.send(Done())


def _refusal(error: Exception) -> Refused:
    kind = type(error).__name__
    return Refused(kind, str(error) if isinstance(error, TwinkleError) else f"{kind}: {error}")


if __name__ == "__main__":
    main()
