"""``run.folder``: a run that lies in exactly the folder that it was given, attempt after attempt."""

import os
import time
from contextlib import ExitStack
from pathlib import Path

from twinkle.errors import ConfigError, RunInUseError
from twinkle.loop.run_folder import (
    RESULT,
    STARTED,
    RunFolder,
    RunIdentity,
    continue_run,
    lock_or_none,
    read_json,
    start_run,
)

IN_USE_S = 30.0
"""How long a process that holds the folder may take to end: it may be saving."""


def open_folder(path: Path, resume: str, identity: RunIdentity, *, in_use_s: float = IN_USE_S) -> RunFolder:
    """The run in exactly this folder, locked: with ``auto`` one that lies there is continued, else it begins there.

    One that is finished, with as many steps as are asked for, is returned as it is. Nothing points at it as ``latest``.

    Raises:
        ConfigError: it holds something else, a run of other settings, or with ``off`` a run at all.
        RunInUseError: another process holds it, and still did after ``in_use_s`` seconds.
    """
    with ExitStack() as undo:
        lock = _lock_of(path, in_use_s)
        undo.callback(os.close, lock)
        there = (path / STARTED).exists()
        run = _continued(path, lock, resume, identity) if there else _begun(path, lock, identity)
        undo.pop_all()
    return run


def _lock_of(path: Path, in_use_s: float) -> int:
    deadline = time.monotonic() + in_use_s
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error
    while (lock := lock_or_none(path)) is None:
        if time.monotonic() >= deadline:
            raise RunInUseError(f"run.folder={str(path)!r} is in use by another process, after {in_use_s:g} s still.")
        time.sleep(0.2)  # flock knows no deadline
    return lock


def _begun(path: Path, lock: int, identity: RunIdentity) -> RunFolder:
    others = sorted(each.name for each in path.iterdir() if not each.name.startswith("."))
    if others:
        raise ConfigError(f"run.folder={str(path)!r} holds {others[0]} and no run: name a folder of its own.")
    try:
        start_run(path, identity)
    except OSError as error:
        raise _unwritable(path, error) from error
    return RunFolder(path.resolve(), lock, lineage=0, exact=True)


def _continued(path: Path, lock: int, resume: str, identity: RunIdentity) -> RunFolder:
    if resume == "off":
        raise ConfigError(f"run.folder={str(path)!r} holds a run already: run.resume=auto continues it.")
    started = read_json(path / STARTED)
    if difference := identity.difference(started):
        raise ConfigError(f"run.folder={str(path)!r} was started with other settings: {difference}.")
    if (path / RESULT).exists() and started.get("steps", 0) >= identity.steps:
        return RunFolder(path.resolve(), lock, lineage=started["lineage"], exact=True)
    return continue_run(path, lock, started, identity, exact=True)


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"run.folder={str(path)!r} cannot be written ({error.strerror}): name a folder of yours.")
