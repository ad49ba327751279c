"""The model that a run starts from."""

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from twinkle import hub
from twinkle.model.config import TINY_MODELS, ModelConfig


def base_model(config: ModelConfig, run: Path, settings: hub.HubConfig) -> Path:
    """The folder of the model to train: what the hub makes of its id, or a tiny one that is made in ``run``, once.

    Raises:
        ModelNotFoundError, DownloadError: the id leads to no model, or its hub does not serve it.
    """
    if config.id not in TINY_MODELS:
        return hub.resolve(config.id, settings=settings)
    folder = run / "base_model"
    if not folder.exists():
        from twinkle.model.tiny import make_tiny

        draft = run / ".base_model.draft"
        shutil.rmtree(draft, ignore_errors=True)
        make_tiny(config, draft)
        draft.rename(folder)
    return folder


def positions_of(folder: Path) -> int | None:
    """Most tokens that the model in the folder reads; None when there is no bound."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config(decoder=True)
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions


def base_model_here(config: ModelConfig, folder: Path, settings: hub.HubConfig) -> Path:
    """The ``folder`` that `base_model` gave; on another machine, where it is not, the same model in a folder there.

    A tiny model is made again, equal to the byte, and lasts as long as this process.
    """
    if folder.is_dir():
        return folder
    return base_model(config, Path(_of_this_process().name), settings)


@cache
def _of_this_process() -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="twinkle-model-", ignore_cleanup_errors=True)
