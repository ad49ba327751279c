"""Journals that are always closed, and a way to see all that one holds."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.transfer_queue.journal.folds import kept
from transfer_queue.journal import Journal, Recovered


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def begin(folder: Path) -> Iterator[Callable[..., tuple[Journal, Recovered]]]:
    """Opens the journal of `folder`; whatever is open at the end of the test is closed."""
    with contextlib.ExitStack() as stack:

        def start(**arguments: Any) -> tuple[Journal, Recovered]:
            journal, recovered = Journal.open(folder, **arguments)
            return stack.enter_context(journal), recovered

        yield start


def everything(folder: Path) -> tuple[list[bytes], list[str]]:
    """Every record that a journal holds, in its snapshot and behind it, and the warnings."""
    journal, recovered = Journal.open(folder)
    with journal:
        behind = list(recovered.records)
        assert len(behind) == recovered.count
        return kept(recovered.snapshot) + behind, recovered.warnings
