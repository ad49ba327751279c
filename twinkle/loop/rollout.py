"""Task ``rollout``: prompts become responses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from twinkle.data.base import Prompt, PromptRow, PromptSource
from twinkle.data.check import encoded
from twinkle.data_format import InputFeature, SampledSequence, SamplingParams
from twinkle.errors import WeightSyncError
from twinkle.infra import remote_function
from twinkle.loop.config import QueueConfig
from twinkle.loop.payload import WeightPayload
from twinkle.loop.prompt_rows import PROMPT_FIELDS, Answer, prompt_runs, response_fields
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.sharing import shared_out
from twinkle.loop.weight_sync import Arrival, PolicySampler, Probe, Receivers

PROBE_TOKENS = 2
"""One from the prompt's forward pass, one from the cache of keys and values."""
PROBE_SEED = 0x70726F6265


def prompt_seed(run_seed: int, index: int) -> int:
    """The seed of the run's ``index``-th prompt: keyed by what is sampled, never by when or where."""
    return int(np.random.SeedSequence([run_seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Samplers(Receivers, Protocol):
    """What the loop knows of the samplers, whether it started them or not."""

    def work(self, step: int, prompts: int) -> None:
        """Return when the rows of ``prompts`` prompts of partition ``step`` have responses."""

    def answer(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        """The text of one response to each prompt."""

    @property
    def queue_seconds(self) -> float:
        """Wall time inside calls of the queue so far."""

    @property
    def positions(self) -> int | None:
        """Most tokens that prompt and response may have together; None when there is no bound."""

    def close(self) -> None:
        """Give back what is held."""


@dataclass(frozen=True)
class PromptFeeder:
    """Puts the prompts of a step into the queue, each once for every sample that it is to get."""

    client: TimedClient
    source: PromptSource
    samples_per_prompt: int
    seed: int

    def feed(self, step: int, cursor: int, count: int) -> int:
        """Put ``count`` prompts as the rows of partition ``step``; returns the cursor behind them.

        Rows of one prompt lie side by side, so the queue forms whole groups of them.
        """
        rows = self.source.draw(cursor, count)
        n = self.samples_per_prompt
        fields = {
            "prompt": [row.prompt for row in rows for _ in range(n)],
            "answer": [row.answer for row in rows for _ in range(n)],
            "sample_id": torch.arange(cursor * n, (cursor + count) * n),
            "seed": torch.tensor([prompt_seed(self.seed, cursor + i) for i in range(count) for _ in range(n)]),
        }
        self.client.put(fields, global_step=step)
        return cursor + count


@dataclass
class RolloutWorker:
    """Takes whole groups of prompts, samples a response for each row, and stamps it with version and fingerprint.

    Attributes:
        probe_prompt: what the sampler answers after every sync.
    """

    client: TimedClient
    policy: PolicySampler
    params: SamplingParams
    samples_per_prompt: int
    queue: QueueConfig
    probe_prompt: Prompt

    @remote_function(dispatch=shared_out, collect=lambda results, offsets: None)
    def work(self, step: int, prompts: int) -> None:
        """Serve the rows of ``prompts`` prompts of partition ``step``."""
        meta, data = self.client.get(
            PROMPT_FIELDS,
            batch_size=prompts * self.samples_per_prompt,
            global_step=step,
            task_name="rollout",
            get_n_samples=True,
            lease_s=self.queue.lease_s,
            timeout_s=self.queue.timeout_s,
            plain=True,
        )
        n, runs = self.samples_per_prompt, prompt_runs(data)
        features = self._encoded([run.prompt for run in runs])
        sequences = self._sampled(features, [run.seed for run in runs], n)
        answers = {
            row: Answer(sequences[i * n + j], features[i]["input_ids"])
            for i, run in enumerate(runs)
            for j, row in enumerate(run.rows)
        }
        if self.policy.version is None:
            raise WeightSyncError("A rollout worker was asked to sample before it received any weights: publish first.")
        fields = response_fields(
            [answers[row] for row in range(len(meta))], self.policy.version, self.policy.fingerprint
        )
        self.client.put(fields, metadata=meta, ack=True)

    @remote_function(dispatch="slice_dp", sliced=("prompts", "seeds"))
    def answer(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[str]:
        """One response to each prompt; not through the queue, because nothing trains on it."""
        return [sequence.text for sequence in self._sampled(self._encoded(prompts), seeds, 1)]

    @remote_function(collect="flatten")
    def receive(self, payload: WeightPayload) -> list[Arrival]:
        """Check these weights and load them; see PolicySampler.receive."""
        return [self.policy.receive(payload)]

    @remote_function(collect="flatten")
    def probe(self) -> list[Probe]:
        """Answer the probe prompt, with the same random numbers every time."""
        feature = self._encoded([self.probe_prompt])[0]
        params = replace(self.params, seed=PROBE_SEED, max_tokens=min(self.params.max_tokens, PROBE_TOKENS))
        response = self.policy.sampler.sample([feature], params, self.policy.adapter_name)
        sequence = response.sequences[0]
        return [Probe(list(feature["input_ids"]), list(sequence.tokens), list(sequence.sampler_logprobs))]

    @property
    @remote_function(collect="mean")
    def queue_seconds(self) -> float:
        """Wall time inside calls of the queue so far."""
        return self.client.seconds

    @property
    @remote_function
    def positions(self) -> int | None:
        """Most tokens that prompt and response may have together; None when there is no bound."""
        return self.policy.sampler.positions

    def _encoded(self, prompts: Sequence[Prompt]) -> list[InputFeature]:
        sampler = self.policy.sampler
        template, positions, most = sampler.template, sampler.positions, self.params.max_tokens
        return [encoded(prompt, template, positions, most) for prompt in prompts]

    def _sampled(
        self, features: Sequence[InputFeature], seeds: Sequence[int], num_samples: int
    ) -> list[SampledSequence]:
        """``num_samples`` sequences for each prompt, prompt-major."""
        params = [replace(self.params, seed=seed) for seed in seeds]
        response = self.policy.sampler.sample(features, params, self.policy.adapter_name, num_samples=num_samples)
        return list(response.sequences)


def evaluate(samplers: Samplers, rows: Sequence[PromptRow], seed: int) -> list[str]:
    """One response for each held-out prompt, at the training temperature, with seeds of its own."""
    return samplers.answer([row.prompt for row in rows], [prompt_seed(seed, i) for i in range(len(rows))])
