"""What is about to be trained, in lines that a person reads; with ``run.dry_run=true`` nothing follows them."""

from twinkle.config import TrainConfig


def plan_lines(config: TrainConfig, *, model: str, run_folder: str) -> list[tuple[str, str]]:
    """Label and value of everything that decides how long a run takes and what it makes.

    Args:
        model: its size in words.
        run_folder: where the run lies.
    """
    loop, tokens = config.loop, config.loop.rows_per_step * config.sampler.max_tokens
    sizes = f"prompts_per_step {loop.prompts_per_step} x samples_per_prompt {loop.samples_per_prompt}"
    threads = f"{config.infra.threads} thread(s)" if config.infra.threads else "threads as torch chooses"
    return [
        ("model", f"{config.model.id}, {model}"),
        ("data", f"{config.data.name}, reward {config.data.reward}"),
        ("step", f"{sizes} = {loop.rows_per_step} rows"),
        (
            "tokens",
            f"at most {config.sampler.max_tokens} a response, {tokens:,} a step, {tokens * loop.steps:,} in all",
        ),
        ("steps", f"{loop.steps}, learning rate {config.optim.lr:g}, {config.algo.advantage}"),
        ("devices", f"{config.model.device}, {threads}; {_ranks(config)}"),
        ("run folder", run_folder),
    ]


def _ranks(config: TrainConfig) -> str:
    mesh = config.mesh
    words = f"{mesh.trainer_dp} trainer rank(s), "
    words += "samplers that attach" if config.sampler.attached else f"{mesh.sampler_dp} sampler(s)"
    words += f" of {mesh.sampler_tp * mesh.sampler_pp} devices" if mesh.sampler_tp * mesh.sampler_pp > 1 else ""
    return words + (f", {mesh.reward_ranks} reward rank(s), on Ray" if config.infra.mode == "ray" else "")


def model_size(config: TrainConfig, *, parameters: int, trainable: int) -> str:
    """A model's size as a person says it."""
    lora = config.model.lora
    how = f"LoRA r={lora.r} ({trainable:,} of them trained)" if lora.enabled else "all of them trained"
    return f"{parameters:,} parameters, {how}"
