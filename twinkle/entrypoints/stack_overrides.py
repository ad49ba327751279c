"""What ``twinkle-train`` would say of a stack's experiment and overrides, without a run."""

from collections.abc import Iterator, Sequence

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException

from twinkle.choices import nearest
from twinkle.config import TrainConfig
from twinkle.entrypoints.explain import EXPERIMENT, experiments, explain
from twinkle.entrypoints.shell import typed
from twinkle.entrypoints.train import schema
from twinkle.errors import ConfigError
from twinkle_operator.problem import Problem

OVERRIDES = ("spec", "run", "overrides")


def refused(experiment: str, overrides: Sequence[str]) -> Iterator[Problem]:
    """An error for each override that cannot be composed into one of this package's experiments.

    An experiment that is not in this package may be in the image, so that is a warning, and its overrides are not
    looked at. Values are not validated: they may name modules that are in the image alone.
    """
    known = experiments()
    if experiment not in known:
        text = f"{experiment!r} is no experiment of this package: the image must bring it{nearest(experiment, known)}"
        yield Problem(("spec", "run", "experiment"), text, "warning", "UnknownExperiment")
        return
    ConfigStore.instance().store(name="train_schema", node=schema())
    with initialize_config_module("hydra_conf", version_base="1.3"):
        if overrides and _sentence(experiment, overrides):
            yield from _culprits(experiment, overrides)


def _culprits(experiment: str, overrides: Sequence[str]) -> Iterator[Problem]:
    """Those that fail alone; all of them together, when none does."""
    alone = [_sentence(experiment, [override]) for override in overrides]
    for index, sentence in enumerate(alone):
        if sentence:
            yield Problem((*OVERRIDES, index), sentence, reason="InvalidOverride")
    if not any(alone):
        yield Problem(OVERRIDES, _sentence(experiment, overrides), reason="InvalidOverride")


def _sentence(experiment: str, overrides: Sequence[str]) -> str:
    """Why they cannot be composed; empty when they can."""
    try:
        typed(compose("config", [f"experiment={experiment}", *overrides]), TrainConfig)
    except HydraException as error:
        return explain(error, TrainConfig, groups=[EXPERIMENT])
    except ConfigError as error:
        return str(error)
    return ""
