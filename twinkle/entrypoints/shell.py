"""The Hydra shell around a program: typed settings in, one sentence and an exit code out."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from transfer_queue.errors import ConfigurationError, ControllerLostError, FieldLostError, TransferQueueError
from twinkle import __version__
from twinkle.entrypoints.arguments import options_first
from twinkle.entrypoints.explain import BAD_INPUT, FAILURE, explain, known_keys, nearest
from twinkle.errors import TRY_AGAIN, ConfigError, TwinkleError
from twinkle.pipe import into_pipe

INTERRUPTED = 130
LOST = (
    "RayActorError", "ActorUnschedulableError", "ActorPlacementGroupRemoved", "NodeDiedError", "WorkerCrashedError",
    "LocalRayletDiedError", "ObjectLostError", "OutOfMemoryError", "RaySystemError", "RpcError",
)  # fmt: skip
"""Of Ray's errors, with all that derive from them, those that mean: a process or a machine is gone."""

Config = TypeVar("Config")


def run_program(
    name: str,
    job: Callable[[DictConfig], int],
    *,
    schema: type,
    schema_name: str,
    config_name: str,
    writes: str,
    groups: Sequence[str] = (),
) -> None:
    """Compose the configuration, run ``job`` on it and end the process with the code that it returns.

    Args:
        name: the command, which begins every message.
        schema, schema_name: the configuration's dataclass, and its name in the ``defaults`` of ``config_name``.
        writes: the setting to name when a folder cannot be written.
        groups: those of the configuration that fill no part of ``schema`` by their name.
    """
    _take_arguments(name, [*known_keys(schema), *groups])
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printer
    ConfigStore.instance().store(name=schema_name, node=open_schema(schema))
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path="pkg://hydra_conf", config_name=config_name)
    def main(settings: DictConfig) -> None:
        codes.append(job(settings))

    try:
        with into_pipe():
            main()
    except HydraException as error:
        say(name, explain(error, schema, groups=groups))
        codes.append(BAD_INPUT)
    except OSError as error:
        say(name, f"{writes} cannot be written ({error.strerror}: {error.filename}): choose a folder of yours.")
        codes.append(BAD_INPUT)
    except KeyboardInterrupt:
        say(name, "Interrupted.")
        codes.append(INTERRUPTED)
    sys.exit(max(codes, default=0))


def _take_arguments(name: str, settings: Sequence[str]) -> None:
    """Put the options of the command line first, where Hydra reads them; ``--version`` is ours, not Hydra's."""
    if "--version" in sys.argv[1:]:
        print(f"{name} {__version__}")
        sys.exit(0)
    try:
        sys.argv[1:] = options_first(sys.argv[1:], settings)
    except ConfigError as error:
        say(name, str(error))
        sys.exit(BAD_INPUT)


def open_schema(schema: type) -> DictConfig:
    """A dataclass as Hydra's schema: typed, closed to unknown keys, open to overrides though its classes are frozen."""
    config = OmegaConf.structured(schema)
    _thaw(config)
    return cast(DictConfig, config)


def typed(settings: DictConfig, schema: type[Config]) -> Config:
    """The typed configuration; ConfigError for a key that ``+key=value`` smuggled in."""
    known = set(known_keys(schema))
    for key in _keys(settings):
        if key not in known:
            raise ConfigError(f"There is no setting {key!r}{nearest(key, known)}")
    return cast(Config, OmegaConf.to_object(settings))


def failed(name: str, error: Exception, debug_setting: str, *, debug: bool) -> int:
    """Say what went wrong (with ``debug`` the whole traceback); the exit code for it."""
    say(name, traceback.format_exc() if debug else sentence(error, debug_setting))
    return exit_code(error)


def exit_code(error: Exception) -> int:
    """2 for what a person asked for and cannot have, 75 for what is lost and may come back, 1 for what went wrong."""
    if isinstance(error, TwinkleError):
        return error.exit_code
    if isinstance(error, ControllerLostError | FieldLostError) or _is_lost(error):
        return TRY_AGAIN
    return BAD_INPUT if isinstance(error, ConfigurationError) else FAILURE


def _is_lost(error: Exception) -> bool:
    return any(each.__name__ in LOST and each.__module__ == "ray.exceptions" for each in type(error).__mro__)


def sentence(error: Exception, debug_setting: str) -> str:
    """What to tell a person about a failure."""
    if isinstance(error, TwinkleError | TransferQueueError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__}: {error} ({where.filename}:{where.lineno}). "
        f"{debug_setting}=true shows the whole traceback."
    )


def say(name: str, text: str) -> None:
    """One message of the program, on stderr."""
    Console(stderr=True, soft_wrap=True).print(f"{name}: {text}", style="bold red", markup=False, highlight=False)


def _thaw(config: DictConfig) -> None:
    config._set_flag("readonly", None)
    if config._metadata.object_type is dict:
        config._set_flag("struct", False)  # its keys are the user's own
    for key in config:
        node = config._get_node(key)
        if isinstance(node, DictConfig):
            _thaw(node)


def _keys(settings: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key in map(str, settings):
        keys.append(f"{prefix}{key}")
        if isinstance(node := settings._get_node(key), DictConfig) and node._metadata.object_type not in (None, dict):
            keys += _keys(node, f"{prefix}{key}.")
    return keys
