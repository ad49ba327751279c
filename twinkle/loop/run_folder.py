"""The run folder: where everything of one run lies, who may write to it, and which one ``resume`` means."""

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from twinkle.errors import ConfigError, RunError, RunInUseError

STARTED = "run.json"
RESULT = "result.json"
QUEUE = "queue.json"
WEIGHTS = "weights"
CHECKPOINTS = "checkpoints"
LOCK = ".lock"


class RunFolder:
    """One run's folder, locked by this process until ``close``.

    Holds ``run.json`` (what a run must share to continue it, lineage), ``config.yaml``, ``metrics.jsonl``,
    ``samples.jsonl``, ``evals.jsonl``, ``checkpoints/``, ``tensorboard/``, ``reward.png``, ``report.html``,
    ``adapter/`` or ``model/``, and at the end ``result.json``: a folder without it is unfinished. While it runs,
    ``queue.json`` says where its queue is, and ``weights`` are the newest for samplers that it did not start.
    ``finished_steps`` says after how many a run was finished that now goes on.
    """

    def __init__(self, path: Path, lock: int, *, lineage: int, exact: bool = False, finished_steps: int | None = None):
        self.path = path
        self.lineage = lineage
        self.exact = exact
        self.finished_steps = finished_steps
        self._lock = lock

    @property
    def resumed(self) -> bool:
        """Whether an earlier process began this run."""
        return self.lineage > 0

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @property
    def finished(self) -> bool:
        """Whether the run wrote its result."""
        return (self.path / RESULT).exists()

    def close(self) -> None:
        """Let another process continue this run."""
        os.close(self._lock)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace ``path`` by ``value`` in one rename: a reader sees the old document or the new one."""
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w") as file:
        json.dump(value, file, indent=1, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``; RunError naming the file when it is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} holds {type(value).__name__}, not an object.")
    return value


@dataclass(frozen=True)
class RunIdentity:
    """What two runs must share for one to continue the other.

    Attributes:
        name: the run's name.
        settings: everything that decides its parameters but the number of steps, by dotted key.
        steps: the number of steps; a run that is continued by name may get more.
    """

    name: str
    settings: dict[str, Any]
    steps: int

    def difference(self, started: Mapping[str, Any]) -> str:
        """The first setting that differs from those in a ``run.json``, in words; empty when none does."""
        theirs = started.get("settings", {})
        for key in sorted({*self.settings, *theirs}):
            if self.settings.get(key) != theirs.get(key):
                return f"{key} was {theirs.get(key)!r}, now it is {self.settings.get(key)!r}"
        return ""


def new_run(root: Path, identity: RunIdentity) -> RunFolder:
    """Make ``<root>/<time>-<name>`` and point ``<root>/latest`` at it.

    Raises:
        ConfigError: the folder cannot be written.
    """
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{identity.name}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        path = _unused(root, stem)
        lock = _lock(path)
        start_run(path, identity)
        _point_latest(root, path)
    except OSError as error:
        why = "is a file" if root.is_file() else f"cannot be written ({error.strerror})"
        raise ConfigError(f"run.root={str(root)!r} {why}: choose a folder of yours with run.root=PATH.") from error
    return RunFolder(path, lock, lineage=0)


def discard(run: RunFolder) -> None:
    """Remove a run that never began, and point ``latest`` at the newest that is left; an exact folder stays, empty."""
    if run.exact:
        _empty(run.path)
        return
    root = run.path.parent
    shutil.rmtree(run.path, ignore_errors=True)
    (root / "latest").unlink(missing_ok=True)
    left = next(_newest_first(root), None)
    if left is not None:
        _point_latest(root, left)
    else:
        with suppress(OSError):  # it holds something else, or is a volume's own folder
            root.rmdir()


def _empty(path: Path) -> None:
    """Remove all but the lock, for which another process may wait."""
    for each in path.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each, ignore_errors=True)
        elif each.name != LOCK:
            each.unlink()


def find_run(root: Path, resume: str, identity: RunIdentity) -> RunFolder | None:
    """The locked folder that ``resume`` means, or None when a new one is to be made.

    ``auto`` takes the newest unfinished folder under ``root`` of the same identity that no process holds.
    A folder by name must exist, be free and bear the same settings; it may be given more steps than it had.
    Each resume opens a new lineage.
    """
    if resume == "off":
        return None
    if resume == "auto":
        return next((run for path in _newest_first(root) if (run := _continue_if_ours(path, identity))), None)
    return _continue_named(Path(resume), root, identity)


def checkpoints_in(folder: Path) -> list[Path]:
    """The whole checkpoints of a run, oldest first."""
    found = [path for path in (folder / CHECKPOINTS).glob("step-*") if (path / "state.json").exists()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The steps that were done when it was written."""
    return int(checkpoint.name.removeprefix("step-"))


def start_run(path: Path, identity: RunIdentity) -> None:
    """Make ``path`` the folder of a new run."""
    write_json(path / STARTED, {**asdict(identity), "lineage": 0, "id": uuid.uuid4().hex})


def _continue_named(path: Path, root: Path, identity: RunIdentity) -> RunFolder:
    if not (path / STARTED).exists():
        there = (root / path / STARTED).exists()
        meant = f"; did you mean {root / path}?" if there else f". Use off, auto or a folder under {root}."
        raise ConfigError(f"run.resume={str(path)!r} is no run folder (it has no {STARTED}){meant}")
    with ExitStack() as undo:
        lock = lock_or_none(path)
        if lock is None:
            raise RunInUseError(f"{path} is in use by another process: wait for its end or start a new run.")
        undo.callback(os.close, lock)
        started = read_json(path / STARTED)
        if difference := identity.difference(started):
            raise ConfigError(f"run.resume={str(path)!r} was started with other settings: {difference}.")
        if (path / RESULT).exists() and started.get("steps", 0) >= identity.steps:
            raise ConfigError(
                f"run.resume={str(path)!r} is finished ({started.get('steps')} steps): "
                "raise loop.steps above that to train on."
            )
        run = continue_run(path, lock, started, identity)
        undo.pop_all()
    return run


def _continue_if_ours(path: Path, identity: RunIdentity) -> RunFolder | None:
    lock = lock_or_none(path)
    if lock is None:
        return None
    with ExitStack() as undo:
        undo.callback(os.close, lock)
        started = read_json(path / STARTED)
        if identity.difference(started) or started.get("steps") != identity.steps or (path / RESULT).exists():
            return None
        run = continue_run(path, lock, started, identity)
        undo.pop_all()
    return run


def continue_run(
    path: Path, lock: int, started: dict[str, Any], identity: RunIdentity, *, exact: bool = False
) -> RunFolder:
    """Open a new lineage of the run whose lock is held."""
    steps = started.get("steps") if (path / RESULT).exists() else None
    run = RunFolder(path.resolve(), lock, lineage=started["lineage"] + 1, exact=exact, finished_steps=steps)
    try:
        (run / RESULT).unlink(missing_ok=True)
        write_json(run / STARTED, {**started, **asdict(identity), "lineage": run.lineage})
        if not exact:
            _point_latest(run.path.parent, run.path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}).") from error
    return run


def _newest_first(root: Path) -> Iterator[Path]:
    folders = [path for path in root.glob("*") if (path / STARTED).exists() and not path.is_symlink()]
    yield from sorted(folders, key=lambda path: path.name, reverse=True)


def _unused(root: Path, stem: str) -> Path:
    number = 0
    while True:
        path = root / (stem if not number else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
            continue
        return path.resolve()


def _lock(path: Path) -> int:
    handle = os.open(path / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def lock_or_none(path: Path) -> int | None:
    """The lock of a run folder, or None while another process holds it."""
    try:
        return _lock(path)
    except BlockingIOError:
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}).") from error


def _point_latest(root: Path, path: Path) -> None:
    draft = root / f".latest-{os.getpid()}"
    draft.unlink(missing_ok=True)
    draft.symlink_to(path.name)
    draft.replace(root / "latest")
