"""A controller per test module and clients that are always closed."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.soak.points import ARMED
from transfer_queue import TransferQueueClient, TransferQueueController, supervisor


@pytest.fixture
def start() -> Iterator[Callable[..., TransferQueueController]]:
    """Starts controllers that end with the test."""
    with ExitStack() as stack:

        def begin(**arguments: Any) -> TransferQueueController:
            arguments = {"global_batch_size": 8, **arguments}
            return stack.enter_context(TransferQueueController.start(**arguments))

        yield begin


@pytest.fixture
def connect() -> Iterator[Callable[..., TransferQueueClient]]:
    """Makes clients that are closed with the test."""
    with ExitStack() as stack:

        def begin(controller: TransferQueueController, name: str = "client") -> TransferQueueClient:
            return stack.enter_context(TransferQueueClient(name, controller.get_info()))

        yield begin


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that arms a point of every controller that is started now; they are brought back however often."""
    monkeypatch.setenv(ARMED, str(tmp_path / "armed"))
    monkeypatch.setattr(supervisor, "PROGRAM", "tests.soak.controller")
    monkeypatch.setattr(supervisor, "RESTARTS", 1000)
    return tmp_path / "armed"
