"""The whole configuration of a training run: one frozen dataclass per part, each next to its owner."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from twinkle.data.config import DataConfig
from twinkle.errors import ConfigError
from twinkle.hub.settings import HubConfig
from twinkle.infra.device_group import DeviceGroup
from twinkle.loop.config import (
    EvalConfig,
    InfraConfig,
    LoopConfig,
    MeshConfig,
    MetricsConfig,
    QueueConfig,
    RunConfig,
)
from twinkle.loop.run_folder import RunIdentity
from twinkle.model.config import ModelConfig, OptimConfig
from twinkle.rl.config import AlgoConfig
from twinkle.sampler.config import SamplerConfig
from twinkle.template.config import TemplateConfig

NOT_PART_OF_THE_RESULT = (
    "run.", "metrics.", "queue.", "eval.", "hub.", "loop.steps", "loop.checkpoint", "loop.samples_every",
    "loop.samples_kept", "loop.probe_every", "infra.", "mesh.", "model.device", "sampler.attached",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """What ``twinkle-train`` runs. Groups of ``hydra_conf`` fill the parts of the same name."""

    run: RunConfig = field(default_factory=RunConfig)
    infra: InfraConfig = field(default_factory=InfraConfig)
    hub: HubConfig = field(default_factory=HubConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    template: TemplateConfig = field(default_factory=TemplateConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    queue: QueueConfig = field(default_factory=QueueConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    algo: AlgoConfig = field(default_factory=AlgoConfig)
    data: DataConfig = field(default_factory=DataConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)

    def validate(self) -> None:
        """Raise ConfigError for the first setting that cannot work, alone or beside another."""
        for part in fields(self):
            getattr(self, part.name).validate()
        if self.loop.prompts_per_step % self.mesh.trainer_dp:
            raise ConfigError(
                f"loop.prompts_per_step={self.loop.prompts_per_step} is not divisible by "
                f"mesh.trainer_dp={self.mesh.trainer_dp}: every rank needs the same number of whole groups."
            )
        self._validate_ranks()
        if self.infra.mode == "ray":
            self.device_groups()

    def device_groups(self) -> list[DeviceGroup]:
        """The groups of a run on Ray, sized by its meshes; ConfigError for one that cannot be."""
        infra, mesh, device = self.infra, self.mesh, self.model.device.partition(":")[0]
        groups = [infra.trainer.group("trainer", mesh.trainer_dp, device)]
        if not self.sampler.attached:
            groups.append(infra.sampler.group("sampler", mesh.sampler_ranks, device))
        if mesh.reward_ranks:
            groups.append(infra.reward.group("reward", mesh.reward_ranks, "cpu"))
        return groups

    def _validate_ranks(self) -> None:
        mesh, local = self.mesh, self.infra.mode == "local"
        for name, needed in (("sampler_dp", 1), ("sampler_tp", 1), ("sampler_pp", 1), ("reward_ranks", 0)):
            size = getattr(mesh, name)
            if self.sampler.attached and name.startswith("sampler") and size > 1:
                raise ConfigError(
                    f"mesh.{name}={size}, but with sampler.attached=true this run has no sampler: give twinkle-sampler "
                    f"mesh.{name.removeprefix('sampler_')}={size}."
                )
            if local and size > needed:
                raise ConfigError(f"mesh.{name}={size} needs processes of their own: set infra=ray, or leave it out.")
            if name in ("sampler_tp", "sampler_pp") and size > 1 and self.sampler.engine != "vllm":
                raise ConfigError(f"mesh.{name}={size} needs sampler=vllm; a torch sampler runs on one device.")
        if mesh.sampler_dp > self.loop.prompts_per_step:
            raise ConfigError(
                f"mesh.sampler_dp={mesh.sampler_dp} is more than loop.prompts_per_step={self.loop.prompts_per_step}: "
                "some replicas would have no prompt to answer."
            )
        if local and self.queue.storage == "ray":
            raise ConfigError("queue.storage=ray keeps values in Ray: set infra=ray, or take queue.storage=shm.")

    def identity(self) -> RunIdentity:
        """What a resumed run must share with the one that it continues: all that decides the trained parameters."""
        settings = dict(_flat(asdict(self)))
        steps = settings["loop.steps"]
        kept = {key: value for key, value in settings.items() if not key.startswith(NOT_PART_OF_THE_RESULT)}
        return RunIdentity(self.run.name, {**kept, "run.seed": self.run.seed}, steps)


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
