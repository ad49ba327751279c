"""The life of one run, from its folder to its report."""

import time
from contextlib import ExitStack, nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console

from transfer_queue.errors import TransferQueueError
from twinkle import hub
from twinkle.config import TrainConfig
from twinkle.data import PromptSource, make_source
from twinkle.errors import RunError, TwinkleError
from twinkle.loop.config import RunConfig
from twinkle.loop.console import StepProgress, show_outcome, show_plan, warn_without_signal
from twinkle.loop.exact_folder import open_folder
from twinkle.loop.origin import begin_with
from twinkle.loop.plan import beginning
from twinkle.loop.records import read_rows
from twinkle.loop.run_folder import RESULT, RunFolder, RunIdentity, discard, find_run, new_run, write_json
from twinkle.loop.run_queue import open_queue
from twinkle.loop.stop import StopRequested, StopSignals
from twinkle.model.config import TINY_MODELS
from twinkle.rl.reward import Reward
from twinkle.rl.reward import resolve as reward_named

if TYPE_CHECKING:
    from twinkle.loop.assembly import Assembly
    from twinkle.loop.checkpoint import Boundary
    from twinkle.loop.sync import StepDone


def train(config: TrainConfig, resolved: str, stop: StopSignals, *, command: str = "twinkle-train ...") -> Path | None:
    """Train as ``config`` says; returns the run's folder, None for a dry run.

    ``command`` is what a person types to run the same again.

    Guarantees: whatever ends the run, its queue process is gone, its checkpoint is that of a step boundary and its
    folder can be resumed.

    Raises:
        StopRequested: a signal ended it, after checkpoint and report were written.
    """
    console = Console(highlight=False)
    source, reward = make_source(config.data, config.run.seed), reward_named(config.data.reward)
    if config.run.dry_run:
        from twinkle.loop.dry_run import dry_run

        dry_run(console, config, resolved, source)
        return None
    with ExitStack() as stack:
        run = _run_folder(config.run, config.identity())
        stack.callback(run.close)
        if run.finished:
            console.print(f"{run.path} is finished: nothing is left to do.", markup=False, soft_wrap=True)
            return run.path
        (run / "config.yaml").write_text(resolved, encoding="utf-8")
        parts = _assemble(config, run, source, reward, stop, stack, console)
        Session(config, run, parts, console, stop, command).live()
        return run.path


def _run_folder(config: RunConfig, identity: RunIdentity) -> RunFolder:
    if config.folder is not None:
        return open_folder(Path(config.folder), config.resume, identity)
    root = Path(config.root)
    return find_run(root, config.resume, identity) or new_run(root, identity)


def _assemble(
    config: TrainConfig,
    run: RunFolder,
    source: PromptSource,
    reward: Reward,
    stop: StopSignals,
    stack: ExitStack,
    console: Console,
) -> "Assembly":
    """The parts of the run, the queue first; a new run whose parts cannot be made leaves no folder."""
    try:
        if config.run.resume_from is not None:
            begin_with(run, Path(config.run.resume_from), config.identity())
        queue = open_queue(config, run, stop, stack)
        if config.model.id not in TINY_MODELS:
            hub.resolve(config.model.id, settings=config.hub)
        with console.status("Loading torch and the model ...") if console.is_terminal else nullcontext():
            from twinkle.loop.assembly import assemble

            return assemble(config, run, source, reward, queue, stop, stack)
    except BaseException as error:
        if not run.resumed:
            discard(run)
        if isinstance(error, StopRequested):
            console.print(f"Stopped by {error.signame} before the first step.", markup=False)
        raise


class Session:
    """One run while it lives."""

    def __init__(
        self, config: TrainConfig, run: RunFolder, parts: "Assembly", console: Console, stop: StopSignals, command: str
    ):
        self.config, self.run, self.parts, self.console, self.stop = config, run, parts, console, stop
        self.command = command
        self.boundary: Boundary = parts.boundary

    def live(self) -> None:
        """Show the plan, train, and keep what came of it; on a signal or a failure save what is whole first."""
        run, step = self.run, self.boundary.step
        start = beginning(self.config, step=step, resumed=run.resumed, finished_steps=run.finished_steps)
        show_plan(self.console, self.config.run.name, self.parts.plan, start)
        try:
            self._train()
            self._finish()
        except StopRequested as stopped:
            if self.run.finished:
                self._show_outcome()
            else:
                self._save_unfinished(stopped.signame)
            raise
        except Exception:
            if self.parts.loop.intact and self.boundary.step:
                self._save_what_is_whole()
            raise

    def _train(self) -> None:
        loop, steps = self.parts.loop, self.config.loop.steps
        loop.publish(self.boundary.step)
        known = read_rows(self.run / "evals.jsonl")
        if known:
            self.parts.metrics.evaluated(known[-1]["reward_mean"])
        self._evaluate_if_due(first=not known)
        with StepProgress(self.console, steps=steps, done=self.boundary.step) as progress:
            while self.boundary.step < steps:
                done = loop.step(self.boundary, self._record)
                progress.step(done.row)
                self._evaluate_if_due()

    def _evaluate_if_due(self, *, first: bool = False) -> None:
        """Held-out reward before, after and every ``eval.every`` steps; never twice, so a resumed run may ask again."""
        step, every = self.boundary.step, self.config.eval.every
        if first or step == self.config.loop.steps or (every and step % every == 0):
            if first:
                self.console.print(f"Answering {self.config.data.held_out_prompts} held-out prompts ...", style="dim")
            result = self.parts.evaluation.run(step)
            self.parts.records.evaluated(result)
            self.parts.metrics.evaluated(result["reward_mean"])

    def _record(self, done: "StepDone") -> None:
        """Write a step down, and a checkpoint when one is due; signals wait meanwhile."""
        step, loop = done.boundary.step, self.config.loop
        self.parts.records.step(done.row)
        for sample in done.samples:
            self.parts.records.samples.write({"step": step, **sample})
        self.parts.metrics.step(done.row, tokens=done.tokens, samples=loop.rows_per_step)
        if step == loop.steps or (loop.checkpoint_every and step % loop.checkpoint_every == 0):
            self._checkpoint(done.boundary)
        self.boundary = done.boundary

    def _checkpoint(self, boundary: "Boundary") -> None:
        self._sync_records()
        self.parts.assert_queue_empty()
        self._save(boundary)

    def _save(self, boundary: "Boundary") -> None:
        state = self.parts.loop.trainer.state_dict()
        self.parts.checkpoints.save(boundary, state, {"lineage": self.run.lineage})
        self.parts.metrics.progress.update(checkpoint_step=boundary.step)

    def _sync_records(self) -> None:
        self.parts.records.sync()
        self.parts.evaluation.sync()

    def _save_unfinished(self, reason: str) -> None:
        """Checkpoint and report of a run that ends early, so that run.resume continues it."""
        with self.stop.shielded():
            self._sync_records()
            self._save(self.boundary)
            report = self._report()
        resume = "auto" if self.run.exact else self.run.path
        self.console.print(
            f"\nStopped by {reason} after step {self.boundary.step} of {self.config.loop.steps}; "
            f"all up to there is saved.\n"
            f"  report    {report}\n  continue  {self.command} run.resume={resume}",
            markup=False,
            soft_wrap=True,
        )

    def _save_what_is_whole(self) -> None:
        """As `_save_unfinished`, unless what ended the run took with it what would be saved."""
        try:
            self._save_unfinished("an error")
        except (TwinkleError, TransferQueueError) as error:
            self.console.print(f"\nStep {self.boundary.step} cannot be saved: {error}", markup=False, soft_wrap=True)

    def _finish(self) -> None:
        """Weights, report and result; then say what came of it."""
        with self.stop.shielded():
            kind = "adapter" if self.config.model.lora.enabled else "model"
            self._keep(self.run / kind)
            before, after = self._evals()
            self._report()
            write_json(
                self.run / RESULT,
                {
                    "steps": self.boundary.step,
                    "lineage": self.run.lineage,
                    "eval_reward_before": before["reward_mean"],
                    "eval_reward_after": after["reward_mean"],
                    "sync_seconds_p50": median(row["sync_seconds"] for row in read_rows(self.run / "metrics.jsonl")),
                },
            )
        self._show_outcome()

    def _keep(self, folder: Path) -> None:
        """Write what was trained, as a folder that PEFT or transformers reads."""
        folder.mkdir(exist_ok=True)
        for name, content in self.parts.loop.trainer.pretrained().items():
            (folder / name).write_bytes(content)

    def _evals(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Held-out reward before the run's first step and after its last."""
        rows = read_rows(self.run / "evals.jsonl")
        if len(rows) < 2 or rows[-1]["step"] != self.config.loop.steps:
            raise RunError(
                f"{self.run / 'evals.jsonl'} has no evaluation before the first step, or none of step "
                f"{self.config.loop.steps}: was it edited?"
            )
        return rows[0], rows[-1]

    def _show_outcome(self) -> None:
        before, after = self._evals()
        kept = self.run / ("adapter" if self.config.model.lora.enabled else "model")
        seconds = time.perf_counter() - self.parts.began
        show_outcome(self.console, before, after, kept=kept, report=self.run / "report.html", seconds=seconds)
        warn_without_signal(self.console, read_rows(self.run / "metrics.jsonl"))

    def _report(self) -> Path:
        from twinkle.loop.report import write_report

        return write_report(
            self.run.path, title=self.config.run.name, plan=self.parts.plan, steps=self.config.loop.steps
        )
