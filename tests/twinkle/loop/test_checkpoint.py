import random
from pathlib import Path

import numpy as np
import pytest
import torch

from twinkle.errors import CheckpointError
from twinkle.loop.checkpoint import Boundary, Checkpoints

STATE = {"weights": {"a": torch.arange(3.0)}, "steps": 4}


def draws() -> tuple[float, float, float]:
    return torch.rand(()).item(), float(np.random.rand()), random.random()


def test_a_checkpoint_brings_back_step_cursor_state_and_random_generators(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    checkpoints.save(Boundary.now(7, 56), STATE, {"lineage": 3})
    expected = draws()

    found = checkpoints.newest()

    assert found is not None
    boundary, policy, state = found
    assert (boundary.step, boundary.cursor, state["lineage"], policy["steps"]) == (7, 56, 3, 4)
    assert torch.equal(policy["weights"]["a"], STATE["weights"]["a"])
    boundary.restore_rng()
    assert draws() == expected


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    for step in (1, 2, 3):
        checkpoints.save(Boundary.now(step, step), STATE, {})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000002", "step-000003"]


def test_a_draft_that_a_crash_left_is_invisible_and_then_replaced(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    checkpoints.save(Boundary.now(1, 1), STATE, {})
    torn = tmp_path / ".draft"
    torn.mkdir()
    (torn / "policy.pt").write_bytes(b"half")

    found = checkpoints.newest()
    assert found is not None
    assert found[0].step == 1
    checkpoints.save(Boundary.now(2, 2), STATE, {})
    assert not torn.exists()


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", kept=1).newest() is None


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    path = checkpoints.save(Boundary.now(1, 1), STATE, {})
    (path / "policy.pt").write_bytes(b"PK not a checkpoint")

    with pytest.raises(CheckpointError, match="step-000001"):
        checkpoints.newest()


def test_a_checkpoint_from_another_format_is_refused(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, kept=2)
    path = checkpoints.save(Boundary.now(1, 1), STATE, {})
    (path / "state.json").write_text('{"format": 99, "step": 1, "cursor": 1}')

    with pytest.raises(CheckpointError, match="format 99"):
        checkpoints.newest()
