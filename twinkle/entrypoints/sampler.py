"""``twinkle-sampler``: samplers that attach to a running queue, answer its prompts and follow its run's weights."""

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from yaml import YAMLError

from transfer_queue import ControllerLostError, ControllerTimeoutError, TransferQueueError
from transfer_queue.info_file import read_info
from twinkle.attach_config import SamplerProgramConfig
from twinkle.config import TrainConfig
from twinkle.entrypoints.shell import failed, open_schema, run_program, typed
from twinkle.errors import ConfigError, RunError, WeightSyncError
from twinkle.extras import RAY_EXTRA, require
from twinkle.loop.joining import run_to_join
from twinkle.loop.stop import StopRequested, StopSignals

if TYPE_CHECKING:
    from twinkle.loop.parts import ServingReplica
    from twinkle.loop.serving import Served

NAME = "twinkle-sampler"
SLICE_S = 0.5
"""How long a signal may have to wait for groups to begin."""


def main() -> None:
    """Run ``twinkle-sampler``; ends the process with 0 (the queue ended), 1 (failed), 2 (bad input), 130 (Ctrl-C) or
    143 (SIGTERM)."""
    run_program(
        NAME,
        run_sampler,
        schema=SamplerProgramConfig,
        schema_name="sampler_program_schema",
        config_name="twinkle_sampler",
        writes="queue.info",
    )


def run_sampler(settings: DictConfig) -> int:
    """Serve until the queue ends or a signal comes; whatever ends it, no prompt stays leased."""
    try:
        with StopSignals() as stop, ExitStack() as stack:
            config = typed(settings, SamplerProgramConfig)
            config.validate()
            return Attachment(config, stop).serve(stack)
    except StopRequested as stopped:
        return stopped.exit_code
    except Exception as error:  # noqa: BLE001 - the boundary of the program: every failure becomes a sentence and a code
        return failed(NAME, error, "debug", debug=bool(OmegaConf.select(settings, "debug", default=False)))


class Attachment:
    """This program's hold on one queue."""

    def __init__(self, config: SamplerProgramConfig, stop: StopSignals) -> None:
        self.config, self.stop = config, stop
        self.console = Console(highlight=False, soft_wrap=True)
        self.file = Path(config.queue.info).absolute()
        self.info = read_info(self.file)
        self.run = run_to_join(self.info)
        self.late = self.dropped = 0

    def serve(self, stack: ExitStack) -> int:
        """Answer prompts until the queue ends; returns the exit code 0.

        Raises:
            RunError: the queue was lost, or had no prompt for ``queue.idle_s`` seconds.
        """
        server = self._server(stack)
        whose = "with the weights of its run" if self.run else "with the weights of the model's folder"
        self.console.print(f"Answering the prompts of {self.file}, {whose}.", markup=False)
        try:
            while True:
                with self.stop.shielded():
                    self._look_at(server.serve(SLICE_S))
        except (ControllerLostError, ControllerTimeoutError, WeightSyncError) as error:
            if not self._ended():
                if isinstance(error, WeightSyncError):
                    raise
                raise RunError(f"The queue of {self.file} was lost: {error}") from error
        self.console.print("The queue has ended.")
        return 0

    def _look_at(self, replicas: "list[Served]") -> None:
        late, dropped = sum(each.late for each in replicas), sum(each.dropped for each in replicas)
        idle_s = min(each.idle_s for each in replicas)
        if late > self.late:
            self.console.print(
                f"{late - self.late} rows were answered after queue.lease_s={self.config.queue.lease_s:g} s and went "
                "to another sampler: raise queue.lease_s.",
                markup=False,
            )
        if dropped > self.dropped:
            why = next(each.dropped_why for each in replicas if each.dropped)
            self.console.print(f"{dropped - self.dropped} rows were dropped: {why}", markup=False)
        self.late, self.dropped = late, dropped
        if idle_s > self.config.queue.idle_s:
            raise RunError(
                f"No prompts for queue.idle_s={self.config.queue.idle_s:g} s ({replicas[0].waits_for}): is their run "
                "still alive?"
            )

    def _ended(self) -> bool:
        """Whether who started the queue has taken its file away, or put another there: it ended as it should."""
        try:
            return read_info(self.file) != self.info
        except TransferQueueError:
            return True

    def _server(self, stack: ExitStack) -> "ServingReplica":
        config = self._training()
        if self.run is not None and "namespace" in self.run.board and self.config.infra.mode != "ray":
            raise ConfigError(f"{self.file} names a run whose weights are on Ray: set infra.mode=ray, and its address.")
        folder = self._model(config, stack)
        mesh, infra, group = self.config.mesh, self.config.infra, None
        if infra.mode == "ray":
            require("ray", "infra.mode=ray", RAY_EXTRA)
            from twinkle.loop.on_ray import connected, set_apart

            group = infra.group(mesh.ranks, config.model.device.partition(":")[0])
            storage = str(self.info.get("storage", "memory"))
            stack.enter_context(connected(address=infra.address, timeout_s=infra.timeout_s))
            set_apart([group], storage=storage, address=infra.address, timeout_s=infra.timeout_s)
            self.stop.take()  # Ray has put a handler of its own in the place of ours
        from twinkle.infra import DeviceMesh
        from twinkle.loop.parts import ServingReplica

        sizes = DeviceMesh.from_sizes(dp_size=mesh.dp, tp_size=mesh.tp, pp_size=mesh.pp)
        board = self.run.board if self.run else None
        queue = {name: value for name, value in self.info.items() if name != "run"}
        server = ServingReplica(
            config, folder, queue, board, self.config.queue, sizes, group.name if group is not None else None
        )
        stack.callback(server.close)
        return server

    def _training(self) -> TrainConfig:
        """The run's configuration, with this program's engine and device in it."""
        run, ours = self._settings(), self.config.sampler
        engine = ours.engine or run.sampler.engine
        kept = run.sampler.engine_args if engine == run.sampler.engine else {}
        sampler = replace(run.sampler, engine=engine, engine_args={**kept, **ours.engine_args})
        threads = run.infra.threads if self.config.infra.threads is None else self.config.infra.threads
        model = replace(run.model, device=ours.device or run.model.device)
        config = replace(run, sampler=sampler, model=model, infra=replace(run.infra, threads=threads))
        for part in (config.sampler, config.model, config.template, config.loop):
            part.validate()
        return config

    def _settings(self) -> TrainConfig:
        if self.run is not None and self.config.queue.settings is None:
            return _training_config(self.run.settings, str(self.file))
        if self.run is not None:
            raise ConfigError(f"queue.settings is for a queue without a run, and {self.file} names one: leave it out.")
        if self.config.queue.settings is None:
            raise ConfigError(
                f"{self.file} belongs to no run that has samplers attach: start one with sampler.attached=true; or, "
                "for a queue of twinkle-queue, say with queue.settings=config.yaml what to sample with."
            )
        file = Path(self.config.queue.settings)
        try:
            return _training_config(OmegaConf.load(file), str(file))
        except (OSError, YAMLError) as error:
            raise ConfigError(f"queue.settings={str(file)!r} cannot be read ({error}).") from error

    def _model(self, config: TrainConfig, stack: ExitStack) -> Path:
        """Where the model lies that the run began with."""
        if self.run is not None:
            return self.run.model
        from twinkle.loop.base_model import base_model

        made = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        return base_model(config.model, made, config.hub)


def _training_config(settings: Any, place: str) -> TrainConfig:
    """The typed configuration of a run; ConfigError when it is none of this version's."""
    try:
        config = OmegaConf.to_object(OmegaConf.merge(open_schema(TrainConfig), settings))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{place} holds no settings of twinkle-train: {str(error).splitlines()[0]}.") from error
    return cast(TrainConfig, config)


if __name__ == "__main__":
    main()
