"""What is about to be trained, in lines that a person reads; with ``run.dry_run=true`` nothing follows them."""

from twinkle.config import TrainConfig
from twinkle.data import DataConfig

TASKS = {
    "reverse_digits": "write the digits of the prompt in reverse order",
    "even_digits": "answer with even digits only, as many as the prompt has digits",
}


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
        ("task", _task(config.data)),
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


def beginning(config: TrainConfig, *, step: int, resumed: bool, finished_steps: int | None) -> str:
    """Where a run goes on and why there; for one that looked for nothing to continue, nothing.

    Args:
        step: the one that its checkpoint stands at; 0 without one.
        resumed: whether an earlier process began this run.
        finished_steps: the steps after which it was finished, if it was.
    """
    run, steps = config.run, config.loop.steps
    if finished_steps is not None:
        return f"This run was finished after {finished_steps} steps; it goes on to {steps} (loop.steps={steps})."
    if step:
        whose = "" if resumed or run.resume_from is None else f", with the newest checkpoint of {run.resume_from}"
        return f"Continuing from step {step} of {steps}{whose}."
    if resumed:
        return "Nothing to continue from: this run has no checkpoint yet. It begins again."
    if run.resume == "auto":
        where = "the folder holds no run yet" if run.folder else "no unfinished run has these settings"
        return f"Nothing to continue: {where}. A new one begins."
    return ""


def _task(data: DataConfig) -> str:
    """What the model is to learn, in a sentence."""
    if data.name in TASKS:
        return TASKS[data.name]
    return f"answer the prompts of {data.path} so that {data.reward} gives a high reward"


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
