"""``run.dry_run=true``: the configuration, the sizes that follow from it, and the memory that it takes."""

import tempfile
from pathlib import Path

from rich.console import Console
from rich.syntax import Syntax
from transformers import AutoTokenizer

from twinkle.config import TrainConfig
from twinkle.data import PromptSource
from twinkle.data.base import trajectory_of
from twinkle.loop.base_model import base_model
from twinkle.loop.console import show_plan
from twinkle.loop.plan import model_size, plan_lines
from twinkle.model.memory import MemoryEstimate, estimate_memory
from twinkle.template import make_template

MIB = 1024**2


def dry_run(console: Console, config: TrainConfig, resolved: str, source: PromptSource) -> None:
    """Print the resolved configuration, the plan and the memory estimate; nothing is kept."""
    with tempfile.TemporaryDirectory() as folder:
        model = base_model(config.model, Path(folder), config.hub)
        tokens = _longest_prompt(model, config, source) + config.sampler.max_tokens
        rows = _rows_at_once(config, tokens)
        memory = estimate_memory(model, config.model, rows=rows, tokens=tokens, kl_coef=config.algo.kl_coef)
    console.print(Syntax(resolved, "yaml", background_color="default"))
    size = model_size(config, parameters=memory.parameters, trainable=memory.trainable)
    plan = plan_lines(config, model=size, run_folder="none: a dry run keeps nothing")
    show_plan(console, config.run.name, [*plan, ("memory", _in_words(memory, rows, tokens))])


def _longest_prompt(model: Path, config: TrainConfig, source: PromptSource) -> int:
    """Tokens of the longest prompt that is known beforehand."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    template = make_template(config.template.name, tokenizer, **config.template.arguments())
    return max(len(template.encode(trajectory_of(row.prompt))["input_ids"]) for row in source.known_prompts())


def _rows_at_once(config: TrainConfig, tokens: int) -> int:
    """Rows of a full micro-batch whose rows have ``tokens`` tokens."""
    rows = min(config.optim.microbatch_rows or config.loop.rows_per_step, config.loop.rows_per_step)
    bound = config.optim.tokens_per_microbatch
    return max(1, min(rows, bound // tokens)) if bound else rows


def _in_words(memory: MemoryEstimate, rows: int, tokens: int) -> str:
    parts = ("weights", "gradients", "optimizer", "activations")
    sizes = ", ".join(f"{part} {getattr(memory, part) / MIB:.1f}" for part in parts)
    return (
        f"about {memory.total / MIB:.1f} MiB for the trainer ({sizes}; micro-batches of {rows} rows x {tokens} "
        "tokens), and its weights again for the sampler"
    )
