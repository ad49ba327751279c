"""Checkpoints at step boundaries: complete or invisible, because one rename makes them visible."""

import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from twinkle.errors import CheckpointError
from twinkle.loop.run_folder import read_json, write_json

FORMAT = 1


@dataclass(frozen=True)
class Boundary:
    """The state between two steps that is not the model's: how far the run is, and the random generators.

    Attributes:
        step: optimizer steps done.
        cursor: prompts drawn so far.
        rng: states of the generators of torch, numpy and Python.
    """

    step: int
    cursor: int
    rng: dict[str, Any]

    @classmethod
    def now(cls, step: int, cursor: int) -> "Boundary":
        """The boundary after ``step`` steps with the generators as they are."""
        kind, keys, position, has_gauss, gauss = np.random.get_state()
        version, internal, gauss_next = random.getstate()
        rng: dict[str, Any] = {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": (kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
            "python": (version, list(internal), gauss_next),
        }
        return cls(step, cursor, rng)

    def restore_rng(self) -> None:
        """Put the generators back to where they were."""
        torch.set_rng_state(self.rng["torch"])
        if self.rng["cuda"]:
            torch.cuda.set_rng_state_all(self.rng["cuda"])
        kind, keys, position, has_gauss, gauss = self.rng["numpy"]
        np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
        version, internal, gauss_next = self.rng["python"]
        random.setstate((version, tuple(internal), gauss_next))


class Checkpoints:
    """The folder ``checkpoints/`` of a run: ``step-000050/`` with ``policy.pt``, ``rng.pt`` and ``state.json``."""

    def __init__(self, folder: Path, *, kept: int):
        self.folder = folder
        self.kept = kept

    def save(self, boundary: Boundary, policy_state: dict[str, Any], extra: dict[str, Any]) -> Path:
        """Write the checkpoint of a step, unless it is there, and delete those beyond the newest ``kept``.

        Guarantees: after a crash at any moment the newest visible checkpoint is whole.
        """
        final = self.folder / f"step-{boundary.step:06d}"
        if final.exists():
            return final
        draft = self.folder / ".draft"
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
            _save_tensors(draft / "policy.pt", policy_state)
            _save_tensors(draft / "rng.pt", boundary.rng)
            write_json(
                draft / "state.json", {"format": FORMAT, "step": boundary.step, "cursor": boundary.cursor, **extra}
            )
            _sync_folder(draft)
            draft.rename(final)
            _sync_folder(self.folder)
        except OSError as error:
            raise CheckpointError(f"The checkpoint {final} cannot be written: {error}. Is the disk full?") from error
        for old in self._visible()[: -self.kept]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def newest(self) -> tuple[Boundary, dict[str, Any], dict[str, Any]] | None:
        """The newest checkpoint as (boundary, policy state, state document), or None where there is none."""
        visible = self._visible()
        if not visible:
            return None
        path = visible[-1]
        try:
            policy = torch.load(path / "policy.pt", weights_only=True, map_location="cpu")
            rng = torch.load(path / "rng.pt", weights_only=True, map_location="cpu")
            state = read_json(path / "state.json")
        except (OSError, EOFError, RuntimeError, UnpicklingError) as error:
            why = str(error).splitlines()[0]
            raise CheckpointError(
                f"The checkpoint {path} cannot be read ({why}): delete it to use the one before."
            ) from error
        if state.get("format") != FORMAT:
            raise CheckpointError(
                f"The checkpoint {path} has format {state.get('format')}, this version reads {FORMAT}."
            )
        return Boundary(state["step"], state["cursor"], rng), policy, state

    def _visible(self) -> list[Path]:
        visible = [path for path in self.folder.glob("step-*") if (path / "state.json").exists()]
        return sorted(visible, key=lambda path: int(path.name.removeprefix("step-")))


def _save_tensors(path: Path, value: dict[str, Any]) -> None:
    with path.open("wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
