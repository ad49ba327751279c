"""Model folders of Hugging Face: reading them into modules that own their weights, without noise, and sharing them."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging as transformers_logging

from twinkle.errors import ModelNotFoundError
from twinkle.model.attention import FLOAT64, GROUPED, takes_ours

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """Silence the progress bars of transformers inside the block, and leave the switch as it was found."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def share_weights(folder: Path) -> None:
    """Whoever may read a config may read the weights beside it, which safetensors writes for their owner alone."""
    for weights in folder.glob("*.safetensors"):
        config = "adapter_config.json" if weights.name.startswith("adapter") else "config.json"
        shutil.copymode(folder / config, weights)


def read_model(
    folder: str | Path, device: torch.device, dtype: torch.dtype, attention: str | None = None
) -> PreTrainedModel:
    """The model in `folder` on `device`, without dropout; `attention` None leaves the choice to transformers. A model
    that cannot attend as attention.py does is eager instead of FLOAT64, and as transformers chooses instead of GROUPED.

    It owns its weights: nobody who writes the files later changes them. The global RNG is left as it was. Raises
    ModelNotFoundError for a folder without a model that can be loaded.
    """
    try:
        with torch.random.fork_rng(devices=[]), without_progress_bars():
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                attn_implementation={FLOAT64: "eager", GROUPED: None}.get(str(attention), attention),
                local_files_only=True,
            )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelNotFoundError(f"the folder {str(folder)!r} holds no model that can be loaded: {error}") from error
    if attention in (FLOAT64, GROUPED) and takes_ours(model):
        model.set_attn_implementation(attention)
    if device.type == "cpu":
        _leave_file(model)
    model.to(device)
    return model.eval()


def _leave_file(model: PreTrainedModel) -> None:
    """Move weights from the mapped file into memory."""
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data = tensor.data.clone()
