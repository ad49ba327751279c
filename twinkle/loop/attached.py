"""The samplers of a run that started none: programs outside it answer its prompts, and fetch its weights themselves."""

import time
from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path

import torch

from transfer_queue import BatchMeta, ExhaustedError, NotReadyError, StepClearedError
from twinkle.data.base import Prompt
from twinkle.errors import DataError, RunError
from twinkle.loop.config import LoopConfig, QueueConfig
from twinkle.loop.payload import WeightPayload
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.weight_board import WeightBoard
from twinkle.loop.weight_sync import Arrival, Probe

TASK = "answered"
"""Sees every response once, so that the loop can wait for all of a step. No partition waits for it."""
LOOK_S = 5.0
"""How often a wait looks for dropped prompts; by itself it goes on while its step has room for others."""
FIRST_EVALUATION = 1 << 40
"""Partitions of held-out prompts bear numbers that no step will reach."""


class AttachedSamplers:
    """What the loop knows of them: the queue, and the board that they look at.

    Attributes:
        positions: most tokens that the model reads.
    """

    def __init__(
        self, client: TimedClient, board: WeightBoard, loop: LoopConfig, queue: QueueConfig, positions: int | None,
        info_file: Path,
    ) -> None:  # fmt: skip
        """``info_file`` is what a sampler is told, to find the run."""
        self._client, self._board, self.positions = client, board, positions
        self._samples_per_prompt, self._rows_per_step = loop.samples_per_prompt, loop.rows_per_step
        self._timeout_s, self._lease_s, self._info_file = queue.timeout_s, queue.lease_s, info_file
        self._evaluations = count(FIRST_EVALUATION)

    def work(self, step: int, prompts: int) -> None:
        """Wait until samplers have answered the step's prompts.

        Raises:
            DataError: a sampler dropped prompts that cannot be answered; it names one.
            RunError: not all of them within ``queue.timeout_s``; it says which are missing and why.
        """
        self._client.ack(self._wait_for(step, prompts * self._samples_per_prompt, f"step {step}"))

    def answer(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        """One response to each prompt, through partitions of their own that no other task sees."""
        texts: list[str] = []
        for start in range(0, len(prompts), self._rows_per_step):
            end = start + self._rows_per_step
            texts += self._answered(prompts[start:end], seeds[start:end])
        return texts

    def receive(self, payload: WeightPayload) -> list[Arrival]:
        """Hang out the weights; every sampler checks and loads them before it answers the next prompt."""
        self._board.publish(payload)
        return []

    def probe(self) -> list[Probe]:
        """Nobody is asked: the log-probs of every row are compared before it is trained on."""
        return []

    @property
    def queue_seconds(self) -> float:
        """Wall time inside calls of the queue so far; waits for the samplers are part of it."""
        return self._client.seconds

    def close(self) -> None:
        """Leave the queue."""
        self._client.close()

    def _answered(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        """The responses to at most a partition of prompts; a group that they do not fill gets more of the last."""
        step, missing = next(self._evaluations), -len(prompts) % self._samples_per_prompt
        rows = len(prompts) + missing
        fields = {
            "prompt": [*prompts, *[prompts[-1]] * missing],
            "sample_id": torch.arange(rows),
            "seed": torch.tensor([*seeds, *_others(seeds, missing)]),
        }
        self._client.put(fields, global_step=step, timeout_s=self._timeout_s)
        meta = self._wait_for(step, rows, f"{len(prompts)} held-out prompts")
        data = self._client.get_data(meta, ["sample_id", "response"], plain=True)
        self._client.ack(meta)
        self._client.clear(step)
        texts = dict(zip(data["sample_id"].tolist(), data["response"], strict=True))
        return [texts[index] for index in range(len(prompts))]

    def _wait_for(self, step: int, rows: int, what: str) -> BatchMeta:
        """The rows when all have responses; the deadline begins anew whenever some more have."""
        ready, ends = 0, time.monotonic() + self._timeout_s
        while True:
            try:
                return self._client.get_meta(
                    ["response"],
                    batch_size=rows,
                    global_step=step,
                    task_name=TASK,
                    lease_s=self._lease_s,
                    timeout_s=min(LOOK_S, self._timeout_s),
                )
            except NotReadyError as error:
                self._check_dropped(what, [*self._client.stats().tasks[TASK].dropped])
                if error.details["ready"] > ready:
                    ready, ends = error.details["ready"], time.monotonic() + self._timeout_s
                elif time.monotonic() >= ends:
                    raise self._unanswered(rows, what) from error
            except ExhaustedError as error:
                self._check_dropped(what, error.details["dropped"])
                raise
            except StepClearedError as error:
                raise DataError(
                    f"The samplers have dropped every prompt of {what}; twinkle-sampler says why ({error})."
                ) from error

    def _check_dropped(self, what: str, reasons: Sequence[str]) -> None:
        if reasons:
            raise DataError(f"No sampler can answer {what}: {reasons[0]}")

    def _unanswered(self, rows: int, what: str) -> RunError:
        return RunError(
            f"The run waits for samplers to answer the {rows} rows of {what}, and for queue.timeout_s="
            f"{self._timeout_s:g} s none did ({self._client.why(TASK)}). Is one attached? "
            f"twinkle-sampler queue.info={self._info_file}"
        )


def _others(seeds: Sequence[int], missing: int) -> list[int]:
    """Seeds that are none of these, so that the same prompt again is no second sample of it."""
    taken = set(seeds)
    return list(islice((seed for seed in count() if seed not in taken), missing))
