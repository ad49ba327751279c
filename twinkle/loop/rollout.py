"""Task ``rollout``: prompts become responses."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from twinkle.data.base import Prompt, PromptRow, PromptSource, trajectory_of
from twinkle.data_format import InputFeature, SampledSequence, SamplingParams
from twinkle.errors import WeightSyncError
from twinkle.infra import remote_function
from twinkle.loop.config import QueueConfig
from twinkle.loop.payload import WeightPayload
from twinkle.loop.queue_time import TimedClient
from twinkle.loop.sharing import shared_out
from twinkle.loop.weight_sync import Arrival, PolicySampler, Probe

PROBE_TOKENS = 2
"""One from the prompt's forward pass, one from the cache of keys and values."""
PROBE_SEED = 0x70726F6265
PROMPT_FIELDS = ["prompt", "sample_id", "seed"]


def prompt_seed(run_seed: int, index: int) -> int:
    """The seed of the run's ``index``-th prompt: keyed by what is sampled, never by when or where."""
    return int(np.random.SeedSequence([run_seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


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

    @remote_function(dispatch=shared_out, collect="sum")
    def work(self, step: int, prompts: int) -> int:
        """Serve the rows of ``prompts`` prompts of partition ``step``; returns how many tokens were sampled."""
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
        order = np.argsort(data["sample_id"].numpy(), kind="stable")
        firsts = order[:: self.samples_per_prompt]
        texts, seeds = list(data["prompt"]), data["seed"].tolist()
        features = self._encoded([texts[i] for i in firsts])
        sequences = self._sampled(features, [seeds[i] for i in firsts], self.samples_per_prompt)
        prompt_ids = [list(feature["input_ids"]) for feature in features]
        self.client.put(self._fields(sequences, prompt_ids, order), metadata=meta, ack=True)
        return sum(len(sequence.tokens) for sequence in sequences)

    @remote_function(dispatch="slice_dp", sliced=("prompts", "seeds"))
    def answer(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[SampledSequence]:
        """One response to each prompt; not through the queue, because nothing trains on it."""
        return self._sampled(self._encoded(prompts), seeds, 1)

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
        return [self.policy.sampler.template.encode(trajectory_of(prompt)) for prompt in prompts]

    def _sampled(
        self, features: Sequence[InputFeature], seeds: Sequence[int], num_samples: int
    ) -> list[SampledSequence]:
        """``num_samples`` sequences for each prompt, prompt-major."""
        params = [replace(self.params, seed=seed) for seed in seeds]
        response = self.policy.sampler.sample(features, params, self.policy.adapter_name, num_samples=num_samples)
        return list(response.sequences)

    def _fields(
        self, sequences: list[SampledSequence], prompt_ids: list[list[int]], order: np.ndarray[Any, Any]
    ) -> dict[str, Any]:
        """The fields in the order of the rows that were fetched; ``order[k]`` is the row of sequence k."""
        version = self.policy.version
        if version is None:
            raise WeightSyncError("A rollout worker was asked to sample before it received any weights: publish first.")
        place = np.argsort(order)
        rows = [sequences[k] for k in place]
        return {
            "prompt_ids": _column([prompt_ids[k // self.samples_per_prompt] for k in place]),
            "response_ids": _column([row.tokens for row in rows]),
            "response": [row.text for row in rows],
            "stop_reason": [row.stop_reason for row in rows],
            "sampler_logprobs": _column([row.sampler_logprobs for row in rows]),
            "version": torch.tensor([version] * len(rows)),
            "fingerprint": [self.policy.fingerprint] * len(rows),
        }


def _column(rows: Sequence[Sequence[float]]) -> torch.Tensor | list[torch.Tensor]:
    """Rows of numbers as one tensor where they are equally long, else as one tensor each."""
    if len({len(row) for row in rows}) == 1:
        return torch.tensor(rows)
    return [torch.tensor(row) for row in rows]


def evaluate(worker: RolloutWorker, rows: Sequence[PromptRow], seed: int) -> list[tuple[PromptRow, SampledSequence]]:
    """One response for each held-out prompt, at the training temperature, with seeds of its own."""
    sequences = worker.answer([row.prompt for row in rows], [prompt_seed(seed, i) for i in range(len(rows))])
    return list(zip(rows, sequences, strict=True))
