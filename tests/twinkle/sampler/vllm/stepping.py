"""vLLM's own scheduler without an engine around it; imports vLLM, so tests import it late."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.config import CacheConfig, ModelConfig, SchedulerConfig, VllmConfig
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

from twinkle.sampler.vllm.ongoing import take_ongoing

BLOCK, BLOCKS, LONGEST, ROWS = 16, 8, 40, 4
EOS, ABORTED = 2, RequestStatus.FINISHED_ABORTED
init_none_hash(sha256)
HASHER = get_request_block_hasher(BLOCK, sha256)


def made(folder: Path) -> Callable[[], Scheduler]:
    """Makes schedulers of a cache so small that rows are in each other's way."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            patch.setenv(name, os.environ[name])  # vLLM sets some for the process that it thinks is its own
        config = VllmConfig(
            model_config=ModelConfig(
                model=str(folder), skip_tokenizer_init=True, dtype="float32", max_model_len=LONGEST
            ),
            scheduler_config=SchedulerConfig(
                max_num_seqs=ROWS, max_num_batched_tokens=64, max_model_len=LONGEST, is_encoder_decoder=False,
                async_scheduling=False,
            ),
            cache_config=CacheConfig(block_size=BLOCK),
        )  # fmt: skip
    config.cache_config.num_gpu_blocks = BLOCKS
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32)
    groups = [KVCacheGroupSpec(["layer"], spec)]
    return lambda: Scheduler(
        config, KVCacheConfig(BLOCKS, [], groups), StructuredOutputManager(config), BLOCK, log_stats=False
    )


class Stepped:
    """A scheduler, and what it was told that each request drew: (token, log-probability); how those ended."""

    def __init__(self, scheduler: Scheduler, *, shortened: bool) -> None:
        self.scheduler = scheduler
        self.drawn: dict[str, list[tuple[int, float]]] = {}
        self.ended: dict[str, Any] = {}
        self.outputs = 0
        if shortened:
            take_ongoing(scheduler, self._take)

    def _take(self, name: str, token: int, logprobs: LogprobsLists, row: int) -> None:
        self.drawn.setdefault(name, []).append((token, float(logprobs.logprobs[row, 0])))

    def begin(self, name: str, prompt: list[int], most: int) -> None:
        params = SamplingParams(max_tokens=most, stop_token_ids=[EOS], ignore_eos=True, logprobs=0)
        self.scheduler.add_request(Request(name, prompt, params, None, block_hasher=HASHER))

    def step(self, token_of: Callable[[str, int], int]) -> None:
        """One step of the scheduler, and of a model that draws these: a function of request and length."""
        planned = self.scheduler.schedule()
        names = list(planned.num_scheduled_tokens)
        requests = self.scheduler.requests
        whole = [requests[name].num_computed_tokens >= requests[name].num_tokens for name in names]
        tokens = [
            [token_of(name, requests[name].num_tokens)] if done else [] for name, done in zip(names, whole, strict=True)
        ]
        column = np.array([[-float(sum(drawn))] for drawn in tokens]).reshape(len(names), 1)
        output = ModelRunnerOutput(
            req_ids=names,
            req_id_to_index={name: row for row, name in enumerate(names)},
            sampled_token_ids=tokens,
            logprobs=LogprobsLists(column.astype(np.int32), column, np.zeros(len(names), np.int32)),
        )
        for group in self.scheduler.update_from_output(planned, output).values():
            for each in group.outputs:
                self.outputs += 1
                for at, token in enumerate(each.new_token_ids):
                    self._take(each.request_id, token, each.new_logprobs, at)
                if each.finish_reason is not None:
                    self.ended[each.request_id] = (each.finish_reason, each.stop_reason)

    def state(self) -> Mapping[str, Any]:
        """What the next step depends on."""
        blocks = self.scheduler.kv_cache_manager
        return {
            "running": [request.request_id for request in self.scheduler.running],
            "requests": {
                name: (
                    request.status, list(request.all_token_ids), request.num_computed_tokens,
                    request.num_in_flight_tokens, list(request.block_hashes), blocks.get_block_ids(name),
                )
                for name, request in self.scheduler.requests.items()
            },
            "free": blocks.block_pool.get_num_free_blocks(),
        }  # fmt: skip
