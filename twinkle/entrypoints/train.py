"""``twinkle-train``: the Hydra shell around a training run."""

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from typing import cast

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from transfer_queue.errors import TransferQueueError
from twinkle.config import TrainConfig
from twinkle.entrypoints.explain import BAD_INPUT, FAILURE, explain, known_keys, nearest
from twinkle.errors import ConfigError, TwinkleError
from twinkle.loop.stop import StopRequested, StopSignals

INTERRUPTED = 130


def main() -> None:
    """Run ``twinkle-train``; ends the process with 0, 1 (failed), 2 (bad input), 130 (Ctrl-C) or 143 (SIGTERM)."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come to us, not to Hydra's own printer
    ConfigStore.instance().store(name="train_schema", node=schema())
    codes: list[int] = []

    @hydra.main(version_base="1.3", config_path="pkg://hydra_conf", config_name="config")
    def job(settings: DictConfig) -> None:
        codes.append(run_job(settings, HydraConfig.get().overrides.task))

    try:
        job()
    except HydraException as error:
        _say(explain(error, TrainConfig))
        codes.append(BAD_INPUT)
    except OSError as error:
        _say(f"run.root cannot be written ({error.strerror}: {error.filename}): choose a folder of yours.")
        codes.append(BAD_INPUT)
    except KeyboardInterrupt:
        _say("Interrupted.")
        codes.append(INTERRUPTED)
    sys.exit(max(codes, default=0))


def run_job(settings: DictConfig, overrides: Sequence[str] = ()) -> int:
    """One run (of several, with ``-m``); returns its exit code. A signal raises SystemExit, which ends a sweep too."""
    debug = bool(OmegaConf.select(settings, "run.debug", default=False))
    try:
        with StopSignals() as stop:
            config = to_config(settings)
            from twinkle.loop.session import train

            again = [override for override in overrides if not override.startswith("run.resume=")]
            command = shlex.join(["twinkle-train", *again])
            return train(config, OmegaConf.to_yaml(settings, resolve=True), stop, command=command)
    except StopRequested as stopped:
        raise SystemExit(stopped.exit_code) from None
    except Exception as error:  # noqa: BLE001 - the boundary of the program: every failure becomes a sentence and a code
        _say(traceback.format_exc() if debug else sentence(error))
        return error.exit_code if isinstance(error, TwinkleError) else FAILURE


def schema() -> DictConfig:
    """TrainConfig as Hydra's schema: typed, closed to unknown keys, open to overrides though its classes are frozen."""
    config = OmegaConf.structured(TrainConfig)
    _thaw(config)
    return cast(DictConfig, config)


def to_config(settings: DictConfig) -> TrainConfig:
    """The typed, validated configuration; ConfigError for a key that ``+key=value`` smuggled in."""
    known = set(known_keys(TrainConfig))
    for key in _keys(settings):
        if key not in known:
            raise ConfigError(f"There is no setting {key!r}{nearest(key, known)}")
    config = cast(TrainConfig, OmegaConf.to_object(settings))
    config.validate()
    return config


def sentence(error: Exception) -> str:
    """What to tell a person about a failure."""
    if isinstance(error, TwinkleError | TransferQueueError):
        return str(error)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__}: {error} ({where.filename}:{where.lineno}). run.debug=true shows the whole traceback."
    )


def _thaw(config: DictConfig) -> None:
    config._set_flag("readonly", None)
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


def _say(text: str) -> None:
    Console(stderr=True, soft_wrap=True).print(
        f"twinkle-train: {text}", style="bold red", markup=False, highlight=False
    )
