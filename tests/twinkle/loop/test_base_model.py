from pathlib import Path

import pytest

from twinkle.errors import ModelNotFoundError
from twinkle.hub import HubConfig
from twinkle.loop.base_model import base_model, base_model_here
from twinkle.model.config import ModelConfig


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_a_tiny_model_is_the_same_on_a_machine_without_the_run_folder(tmp_path: Path) -> None:
    config = ModelConfig(id="tiny-opt", seed=3)
    made = base_model(config, tmp_path, HubConfig())

    elsewhere = base_model_here(config, Path("/runs/of-another-machine/base_model"), HubConfig())

    assert base_model_here(config, made, HubConfig()) == made
    assert elsewhere != made
    assert contents(elsewhere) == contents(made)


def test_another_model_is_looked_for_where_this_machine_has_it(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="absent"):
        base_model_here(ModelConfig(id=str(tmp_path / "absent")), Path("/nowhere"), HubConfig())
