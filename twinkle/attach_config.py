"""Settings of a sampler that attaches to a running queue; importable without torch."""

from dataclasses import dataclass, field
from typing import Any

from twinkle.choices import one_of
from twinkle.errors import ConfigError
from twinkle.infra.device_group import DeviceGroup
from twinkle.infra.runtime import MODES
from twinkle.sampler.config import ENGINES


@dataclass(frozen=True)
class AttachConfig:
    """The queue whose prompts are answered.

    Attributes:
        info: the file that says where the queue is: ``queue.json`` of a run, or of twinkle-queue.
        settings: ``config.yaml`` of a training run, which says model, template and sampling; null: those of the run
            whose queue it is. Needed for a queue of twinkle-queue, which belongs to no run.
        lease_s: seconds after which the prompts of a sampler that was killed go to another one. Every response that
            ends lets the lease of its group begin anew, so it must be longer than a response takes.
        idle_s: seconds without a prompt after which the sampler ends.
        groups_at_once: prompts, with all their samples, that each replica works on at once.
    """

    info: str = "queue.json"
    settings: str | None = None
    lease_s: float = 60.0
    idle_s: float = 1800.0
    groups_at_once: int = 32

    def validate(self) -> None:
        """Raise ConfigError for a number that cannot be."""
        for name in ("lease_s", "idle_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"queue.{name}={getattr(self, name)} must be above 0 seconds.")
        if self.groups_at_once < 1:
            raise ConfigError(f"queue.groups_at_once={self.groups_at_once} must be at least 1.")


@dataclass(frozen=True)
class EngineConfig:
    """What samples; how tokens are drawn is the run's to say.

    Attributes:
        engine: ``torch`` or ``vllm``; null: that of the run.
        engine_args: further arguments of vLLM's engine, by their names there.
        device: cpu, cuda or npu; null: that of the run's model.
    """

    engine: str | None = None
    engine_args: dict[str, Any] = field(default_factory=dict)
    device: str | None = None

    def validate(self) -> None:
        """Raise ConfigError for an engine that there is not."""
        if self.engine is not None:
            one_of("sampler.engine", self.engine, ENGINES)


@dataclass(frozen=True)
class ReplicaMesh:
    """Devices: ``dp`` replicas of ``tp`` x ``pp`` each."""

    dp: int = 1
    tp: int = 1
    pp: int = 1

    @property
    def ranks(self) -> int:
        """Devices of all replicas."""
        return self.dp * self.tp * self.pp

    def validate(self) -> None:
        """Raise ConfigError for a mesh without ranks."""
        for name in ("dp", "tp", "pp"):
            if getattr(self, name) < 1:
                raise ConfigError(f"mesh.{name}={getattr(self, name)} must be at least 1.")


@dataclass(frozen=True)
class AttachInfra:
    """The machines.

    Attributes:
        mode: ``local``, this process; ``ray``, a device group.
        threads: torch threads; 0 leaves it to torch, null: as the run says.
        address: of a running Ray cluster; null: RAY_ADDRESS, or else a Ray of this program on this machine.
        timeout_s: how long Ray may take to find the ranks.
        cpus_per_rank: CPUs that each rank takes from Ray's schedule; null: 1 on cpu, 0 beside another device.
        ranks_per_node: exactly so many on each node; null: as few nodes as possible.
        label_selector: labels that a node must bear.
    """

    mode: str = "local"
    threads: int | None = None
    address: str | None = None
    timeout_s: float = 60.0
    cpus_per_rank: int | None = None
    ranks_per_node: int | None = None
    label_selector: dict[str, str] = field(default_factory=dict)

    def group(self, ranks: int, device_type: str) -> DeviceGroup:
        """The device group of the replicas; ConfigError for settings that no group can have."""
        return DeviceGroup("sampler", ranks, device_type, self.ranks_per_node, self.cpus_per_rank, self.label_selector)

    def validate(self) -> None:
        """Raise ConfigError for a mode that there is not, or a number that cannot be."""
        one_of("infra.mode", self.mode, MODES)
        if not self.timeout_s > 0:
            raise ConfigError(f"infra.timeout_s={self.timeout_s} must be above 0 seconds.")
        if self.threads is not None and self.threads < 0:
            raise ConfigError(f"infra.threads={self.threads} must be at least 0.")


@dataclass(frozen=True)
class SamplerProgramConfig:
    """What ``twinkle-sampler`` runs; ``debug`` lets exceptions show their tracebacks."""

    queue: AttachConfig = field(default_factory=AttachConfig)
    sampler: EngineConfig = field(default_factory=EngineConfig)
    mesh: ReplicaMesh = field(default_factory=ReplicaMesh)
    infra: AttachInfra = field(default_factory=AttachInfra)
    debug: bool = False

    def validate(self) -> None:
        """Raise ConfigError for the first setting that cannot work."""
        for part in (self.queue, self.sampler, self.mesh, self.infra):
            part.validate()
        if self.infra.mode == "local" and self.mesh.ranks > 1:
            raise ConfigError(
                f"mesh has {self.mesh.ranks} devices, which need processes of their own: set infra.mode=ray, or start "
                "twinkle-sampler several times."
            )
