"""Whole training runs inside the test's process: the configuration composed as on the command line, the real queue."""

from pathlib import Path

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from twinkle.config import TrainConfig
from twinkle.entrypoints.train import schema, to_config
from twinkle.loop.session import train
from twinkle.loop.stop import StopSignals


def configured(*overrides: str) -> tuple[TrainConfig, str]:
    """The typed configuration and its resolved text."""
    ConfigStore.instance().store(name="train_schema", node=schema())
    with initialize_config_module("hydra_conf", version_base="1.3"):
        settings = compose("config", overrides=list(overrides))
    return to_config(settings), OmegaConf.to_yaml(settings, resolve=True)


def trained(folder: Path, *overrides: str) -> Path:
    """Train with ``overrides`` under ``folder``; returns the run folder."""
    config, resolved = configured(f"run.root={folder}", "metrics.tensorboard=false", *overrides)
    with StopSignals() as stop:
        train(config, resolved, stop)
    return (folder / "latest").resolve()
