"""What is about to be trained, in lines that a person reads; with ``run.dry_run=true`` nothing follows them."""


from twinkle.config import TrainConfig

MIB = 1024**2


def plan_lines(config: TrainConfig, *, parameters: int, trainable: int, run_folder: str) -> list[tuple[str, str]]:
    """Label and value of everything that decides how long a run takes and what it makes."""
    loop, lora = config.loop, config.model.lora
    how = f"LoRA r={lora.r} ({trainable:,} trainable)" if lora.enabled else "all weights"
    tokens = loop.rows_per_step * config.sampler.max_tokens
    return [
        ("model", f"{config.model.id}, {parameters:,} parameters, {how}"),
        ("data", f"{config.data.name}, reward {config.data.reward}"),
        (
            "step",
            f"prompts_per_step {loop.prompts_per_step} x samples_per_prompt {loop.samples_per_prompt} = {loop.rows_per_step} rows",
        ),
        (
            "tokens",
            f"at most {config.sampler.max_tokens} a response, {tokens:,} a step, {tokens * loop.steps:,} in all",
        ),
        ("steps", f"{loop.steps}, learning rate {config.optim.lr:g}, {config.algo.advantage}"),
        (
            "devices",
            f"{config.model.device}, {config.mesh.trainer_dp} trainer rank(s), 1 sampler, infra {config.infra.mode}",
        ),
        ("run folder", run_folder),
    ]
