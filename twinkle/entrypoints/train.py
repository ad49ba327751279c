"""``twinkle-train``: the Hydra shell around a training run."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from twinkle.config import TrainConfig
from twinkle.entrypoints.explain import BAD_INPUT, EXPERIMENT
from twinkle.entrypoints.shell import failed, open_schema, run_program, say, typed
from twinkle.entrypoints.sweep import sweep_of
from twinkle.errors import ConfigError
from twinkle.loop.stop import StopRequested, StopSignals

NAME = "twinkle-train"


def main() -> None:
    """Run ``twinkle-train``; ends the process with 0, 1 (failed), 2 (bad input), 75 (a process or machine was lost: the
    same command goes on), 130 (Ctrl-C) or 143 (SIGTERM)."""
    given = list(sys.argv[1:])
    is_stack = _expand_stack()
    sweep, console = sweep_of(sys.argv[1:]), Console(highlight=False)

    def job(settings: DictConfig) -> int:
        if sweep is not None:
            sweep.begin(console)
        code, folder = run_job(settings, given if is_stack else HydraConfig.get().overrides.task)
        if sweep is not None:
            sweep.ended.append((code, folder))
        return code

    try:
        run_program(
            NAME,
            job,
            schema=TrainConfig,
            schema_name="train_schema",
            config_name="config",
            writes="run.root",
            groups=[EXPERIMENT],
        )
    finally:
        if sweep is not None and sweep.begun:
            sweep.show(console)


def _expand_stack() -> bool:
    """Put the overrides of ``stack=FILE`` in its place, before Hydra sees the arguments; whether there was one."""
    if not any(argument.startswith("stack=") for argument in sys.argv[1:]):
        return False
    from twinkle.entrypoints.stack_file import expanded

    try:
        found = expanded(sys.argv[1:])
    except ConfigError as error:
        say(NAME, str(error))
        sys.exit(BAD_INPUT)
    assert found is not None
    sys.argv[1:] = found.arguments
    os.environ.update(found.environment)
    print(*found.lines(), sep="\n", file=sys.stderr)
    return True


def run_job(settings: DictConfig, overrides: Sequence[str] = ()) -> tuple[int, Path | None]:
    """One run (of several, with ``-m``); returns its exit code, and its folder if it is whole.

    A signal raises SystemExit, which ends a sweep too.
    """
    debug = bool(OmegaConf.select(settings, "run.debug", default=False))
    try:
        with StopSignals() as stop:
            config = to_config(settings)
            from twinkle.loop.session import train

            again = [override for override in overrides if not override.startswith("run.resume=")]
            command = shlex.join([NAME, *again])
            return 0, train(config, OmegaConf.to_yaml(settings, resolve=True), stop, command=command)
    except StopRequested as stopped:
        raise SystemExit(stopped.exit_code) from None
    except Exception as error:  # noqa: BLE001 - the boundary of the program: every failure becomes a sentence and a code
        return failed(NAME, error, "run.debug", debug=debug), None


def schema() -> DictConfig:
    """TrainConfig as Hydra's schema."""
    return open_schema(TrainConfig)


def to_config(settings: DictConfig) -> TrainConfig:
    """The typed, validated configuration; ConfigError for the first setting that cannot work."""
    config = typed(settings, TrainConfig)
    config.validate()
    return config
