from pathlib import Path

import pytest

from tests.twinkle.entrypoints.cli import Trainer


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return Trainer(tmp_path)
