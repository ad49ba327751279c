"""``run.resume_from``: what a new run begins with, the newest checkpoint of another."""

import shutil
from pathlib import Path

from twinkle.errors import CheckpointError, ConfigError
from twinkle.loop.run_folder import (
    CHECKPOINTS,
    STARTED,
    RunFolder,
    RunIdentity,
    checkpoints_in,
    read_json,
    step_of,
    write_json,
)


def begin_with(run: RunFolder, origin: Path, identity: RunIdentity) -> None:
    """Copy the newest checkpoint of the run in ``origin`` into ``run``, unless that has one of its own.

    Guarantees: the copy is whole or not there, and ``run.json`` says where it came from.

    Raises:
        ConfigError: no run lies there, or one of other settings, without a checkpoint, or as long as this one.
        CheckpointError: the checkpoint cannot be copied.
    """
    if checkpoints_in(run.path):
        return
    checkpoint = _newest_fitting(origin, identity)
    draft = run / CHECKPOINTS / ".draft"
    try:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(checkpoint, draft)
        draft.rename(run / CHECKPOINTS / checkpoint.name)
    except OSError as error:
        raise CheckpointError(f"The checkpoint {checkpoint} cannot be copied to {run.path}: {error}.") from error
    write_json(run / STARTED, {**read_json(run / STARTED), "resumed_from": str(checkpoint)})


def _newest_fitting(origin: Path, identity: RunIdentity) -> Path:
    named = f"run.resume_from={str(origin)!r}"
    if not (origin / STARTED).exists():
        raise ConfigError(f"{named} is no run folder (it has no {STARTED}): name the folder of a run.")
    if difference := identity.difference(read_json(origin / STARTED)):
        raise ConfigError(f"{named} was trained with other settings: {difference}.")
    found = checkpoints_in(origin)
    if not found:
        raise ConfigError(f"{named} has no checkpoint yet: wait for its first, or leave run.resume_from out.")
    if step_of(found[-1]) >= identity.steps:
        raise ConfigError(f"{named} has {step_of(found[-1])} steps behind it: set loop.steps above that to train on.")
    return found[-1]
