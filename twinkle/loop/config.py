"""Settings of a run and of its loop; importable without torch."""

from dataclasses import dataclass, field
from typing import Any

from twinkle.choices import one_of
from twinkle.errors import ConfigError
from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.runtime import MODES
from twinkle.queue_config import sampler_named

TASKS = ["rollout", "reward", "train"]


def _at_least(name: str, value: float, least: float) -> None:
    if value < least:
        raise ConfigError(f"{name}={value} must be at least {least:g}.")


@dataclass(frozen=True)
class LoopConfig:
    """Sizes of the synchronous loop.

    Attributes:
        steps: optimizer steps of the whole run.
        prompts_per_step, samples_per_prompt: one step trains on their product, in rows (samples).
        checkpoint_every: steps between checkpoints; 0 writes one only at the end and on a signal.
        checkpoints_kept: older ones are deleted.
        logp_tolerance: the run ends with a WeightSyncError when a sampler log-prob differs by more from the
            trainer's; None takes 1e-4 in float32 and 0.2 in narrower types, whose kernels differ that much.
        probe_every: steps between two probes of the weight sync, a prompt whose log-probs sampler and trainer compare;
            0 = none. It costs a tiny model a tenth of its step. The rows of every step are compared in any case, before
            they are trained on.
        samples_every: steps between two looks at some samples, which ``samples.jsonl`` keeps; 0 = none.
        samples_kept: rows at each look.
    """

    steps: int = 200
    prompts_per_step: int = 8
    samples_per_prompt: int = 8
    checkpoint_every: int = 50
    checkpoints_kept: int = 2
    logp_tolerance: float | None = None
    probe_every: int = 1
    samples_every: int = 10
    samples_kept: int = 4

    @property
    def rows_per_step(self) -> int:
        """Samples of one step: one partition of the queue."""
        return self.prompts_per_step * self.samples_per_prompt

    def validate(self) -> None:
        """Raise ConfigError for sizes that cannot work."""
        for name in ("steps", "prompts_per_step", "checkpoints_kept"):
            _at_least(f"loop.{name}", getattr(self, name), 1)
        if self.samples_per_prompt < 2:
            raise ConfigError(
                f"loop.samples_per_prompt={self.samples_per_prompt} must be at least 2: an advantage compares the "
                "samples of one prompt with each other, so a single one teaches nothing."
            )
        if self.logp_tolerance is not None and not self.logp_tolerance > 0:
            raise ConfigError(f"loop.logp_tolerance={self.logp_tolerance} must be above 0, or null for the default.")
        for name in ("checkpoint_every", "samples_every", "samples_kept", "probe_every"):
            _at_least(f"loop.{name}", getattr(self, name), 0)


@dataclass(frozen=True)
class EvalConfig:
    """Reward on the held-out prompts: always before and after the run, and every ``every`` steps (0 = not between)."""

    every: int = 0

    def validate(self) -> None:
        """Raise ConfigError for sizes that cannot work."""
        _at_least("eval.every", self.every, 0)


@dataclass(frozen=True)
class RunConfig:
    """Where a run lies and how it starts.

    Attributes:
        name: last part of the run folder's name.
        root: folder that holds the run folders.
        folder: this very folder instead of ``<root>/<time>-<name>``; with ``run.resume=auto`` a run that lies in it is
            continued (one that is finished ends at once, well), and else begun there.
        seed: the run's one seed: data, initialisation of LoRA, sampling.
        resume: ``off``, ``auto`` (the newest unfinished run of the same configuration, else a new one) or a folder.
        resume_from: folder of another run of the same configuration; a new run begins with its newest checkpoint:
            weights, optimizer and place in the data. A run that has a checkpoint of its own goes on from that.
        dry_run: print the configuration with derived sizes and a memory estimate, and stop.
        debug: let exceptions show their tracebacks.
    """

    name: str = "run"
    root: str = "runs"
    folder: str | None = None
    seed: int = 0
    resume: str = "off"
    resume_from: str | None = None
    dry_run: bool = False
    debug: bool = False

    def validate(self) -> None:
        """Raise ConfigError for a name that is no file name, a negative seed, or two wishes where to go on."""
        if not self.name or "/" in self.name:
            raise ConfigError(f"run.name={self.name!r} becomes part of a folder's name: use letters, digits, - and _.")
        _at_least("run.seed", self.seed, 0)
        for name in ("folder", "resume_from"):
            if getattr(self, name) == "":
                raise ConfigError(f"run.{name}='' names no folder: give its path, or null.")
        if self.folder is not None and self.resume not in ("off", "auto"):
            raise ConfigError(
                f"run.folder={self.folder!r} and run.resume={self.resume!r} name two folders: with run.folder, "
                "run.resume is off or auto."
            )
        if self.folder is None and self.resume_from is not None and self.resume != "off":
            raise ConfigError(
                f"run.resume_from={self.resume_from!r} begins a new run, but run.resume={self.resume!r} looks for an "
                "old one: leave run.resume=off, or name the new run's folder with run.folder."
            )


@dataclass(frozen=True)
class QueueConfig:
    """The queue between the loop's tasks.

    Attributes:
        lease_s: seconds after which rows of a silent worker go back to their task: longer than the longest step.
        timeout_s: deadline of every wait; the error then says which rows were missing and why.
        capacity_bytes: bytes of all values at which the rollout waits; null: the steps alone bound them.
        storage: ``shm``, large values in memory that the processes of this machine share; ``memory``, all of them
            in the queue's process, also for several machines; ``ray``, in Ray's object store, for infra=ray on several.
        shm_dir: folder of large values instead of /dev/shm.
        journal: folder on the queue's machine for its journal: the queue comes back from it when its process dies, and
            nobody notices more than a pause; null: that ends the run. It serves one attempt of a run and goes with it.
        num_global_batch: steps that the queue holds at once; whoever puts more of them waits.
        sampler: hands out the rows of every task without an entry in ``task_samplers``: ``sequential``, ``grpo`` (whole
            groups only), the name of one of these classes, or ``module:Class``, made without arguments.
        task_samplers: the same for one task: rollout, reward or train.
    """

    lease_s: float = 3600.0
    timeout_s: float = 300.0
    capacity_bytes: int | None = None
    storage: str = "shm"
    shm_dir: str | None = None
    journal: str | None = None
    num_global_batch: int = 1
    sampler: str = "sequential"
    task_samplers: dict[str, str] = field(default_factory=lambda: {"train": "grpo"})

    def validate(self) -> None:
        """Raise ConfigError for a duration that is not positive, or a task or sampler that there is not."""
        for name in ("lease_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"queue.{name}={getattr(self, name)} must be above 0 seconds.")
        _at_least("queue.num_global_batch", self.num_global_batch, 1)
        for task in self.task_samplers:
            one_of("task of queue.task_samplers", task, TASKS)
        self.samplers(2)

    def samplers(self, samples_per_prompt: int) -> dict[str, Any]:
        """``sampler`` and ``task_samplers`` of the controller; ConfigError names the setting of one that is none."""
        return {
            "sampler": sampler_named("queue.sampler", self.sampler, samples_per_prompt),
            "task_samplers": {
                task: sampler_named(f"queue.task_samplers.{task}", name, samples_per_prompt)
                for task, name in self.task_samplers.items()
            },
        }


@dataclass(frozen=True)
class MeshConfig:
    """Ranks of the trainer, the sampler and the rewards.

    Attributes:
        trainer_dp: data-parallel ranks of the trainer, each with its own slice of a step; the gradient is that of one
            rank to 1e-6. With infra=local they take turns in one process.
        sampler_dp: replicas of the sampler, which share a step's prompts.
        sampler_tp, sampler_pp: devices of one replica, by tensor and by pipeline parallelism (sampler=vllm).
        reward_ranks: processes that score responses; 0: the process of the loop does it.
    """

    trainer_dp: int = 1
    sampler_dp: int = 1
    sampler_tp: int = 1
    sampler_pp: int = 1
    reward_ranks: int = 0

    @property
    def sampler_ranks(self) -> int:
        """Devices of all replicas of the sampler."""
        return self.sampler_dp * self.sampler_tp * self.sampler_pp

    def validate(self) -> None:
        """Raise ConfigError for a mesh without ranks."""
        for name in ("trainer_dp", "sampler_dp", "sampler_tp", "sampler_pp"):
            _at_least(f"mesh.{name}", getattr(self, name), 1)
        _at_least("mesh.reward_ranks", self.reward_ranks, 0)


@dataclass(frozen=True)
class GroupConfig:
    """Where the ranks of one kind run, with infra=ray; see twinkle.DeviceGroup.

    Attributes:
        device_type: cpu, cuda or npu; null: that of ``model.device``, and cpu for rewards.
        cpus_per_rank: CPUs that each rank takes from Ray's schedule; null: 1 on cpu, 0 beside another device.
        ranks_per_node: exactly so many on each node; null: as few nodes as possible.
        label_selector: labels that a node must bear.
    """

    device_type: str | None = None
    cpus_per_rank: int | None = None
    ranks_per_node: int | None = None
    label_selector: dict[str, str] = field(default_factory=dict)

    def group(self, name: str, ranks: int, device_type: str) -> DeviceGroup:
        """The group of that name; ConfigError for settings that no group can have."""
        return DeviceGroup(
            name, ranks, self.device_type or device_type, self.ranks_per_node, self.cpus_per_rank, self.label_selector
        )


@dataclass(frozen=True)
class InfraConfig:
    """The machines.

    Attributes:
        mode: ``local``, this process and the queue's; ``ray``, sampler, rewards and trainer on device groups.
        threads: torch threads; 0 leaves it to torch. Models below some millions of parameters are fastest with 1.
        address: of a running Ray cluster; null: RAY_ADDRESS, or else a Ray of this run on this machine.
        timeout_s: how long Ray may take to find the ranks.
        sampler, trainer, reward: where their ranks run.
    """

    mode: str = "local"
    threads: int = 0
    address: str | None = None
    timeout_s: float = 60.0
    sampler: GroupConfig = field(default_factory=GroupConfig)
    trainer: GroupConfig = field(default_factory=GroupConfig)
    reward: GroupConfig = field(default_factory=GroupConfig)

    def validate(self) -> None:
        """Raise ConfigError for a mode that there is not, or a number that cannot be."""
        one_of("infra.mode", self.mode, MODES)
        _at_least("infra.threads", self.threads, 0)
        if not self.timeout_s > 0:
            raise ConfigError(f"infra.timeout_s={self.timeout_s} must be above 0 seconds.")


@dataclass(frozen=True)
class MetricsConfig:
    """Where figures go besides ``metrics.jsonl``.

    Attributes:
        port: HTTP endpoint with /metrics, /readyz, /why and /v1/status; 0 = off.
        host: address that it listens on.
        linger_s: seconds for which it stays at the end of a run, or until /v1/status told somebody the last figures.
        tensorboard: write event files to ``<run folder>/tensorboard``.
        wandb: send figures to Weights & Biases (extra ``wandb``).
        wandb_project: its project.
    """

    port: int = 0
    host: str = "127.0.0.1"
    linger_s: float = 0.0
    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "twinkle"

    def validate(self) -> None:
        """Raise ConfigError for a number that is no port."""
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"metrics.port={self.port} is no port: 0 (off) to 65535.")
        _at_least("metrics.linger_s", self.linger_s, 0)
