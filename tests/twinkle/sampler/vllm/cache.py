"""vLLM's own cache manager without an engine around it; imports vLLM, so tests import it late."""

from types import SimpleNamespace
from typing import Any

import torch
from vllm import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, SlidingWindowSpec
from vllm.v1.request import Request

from twinkle.sampler.vllm.slots import skip_idle_allocation

BLOCK, BLOCKS, LONGEST = 4, 12, 64
KINDS = {
    "full": FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32),
    "window": SlidingWindowSpec(
        block_size=BLOCK, num_kv_heads=1, head_size=8, dtype=torch.float32, sliding_window=2 * BLOCK
    ),
}
init_none_hash(sha256)
HASHER = get_request_block_hasher(BLOCK, sha256)


def row(name: str, tokens: list[int]) -> Request:
    """A request whose blocks can be found again by what they hold."""
    return Request(name, tokens, SamplingParams(max_tokens=LONGEST), None, block_hasher=HASHER)


class Slots:
    """A cache manager with caches of these kinds, and what its own ``allocate_slots`` was asked: (end, the rest)."""

    def __init__(self, *kinds: str) -> None:
        groups = [KVCacheGroupSpec([f"layer {i}"], KINDS[kind]) for i, kind in enumerate(kinds)]
        self.manager = KVCacheManager(KVCacheConfig(BLOCKS, [], groups), LONGEST, BLOCK, BLOCK)
        self.asked: list[tuple[int, dict[str, Any]]] = []
        allocate = self.manager.allocate_slots

        def asked(request: Request, num_new_tokens: int, **others: Any) -> Any:
            self.asked.append((request.num_computed_tokens + num_new_tokens, others))
            return allocate(request, num_new_tokens, **others)

        self.usual = self.manager.allocate_slots = asked

    def shortened(self, connector: object = None) -> "Slots":
        """With ``skip_idle_allocation``."""
        skip_idle_allocation(SimpleNamespace(kv_cache_manager=self.manager, connector=connector))
        return self

    def begin(self, name: str, length: int) -> Request:
        """A row behind its prompt."""
        request = row(name, list(range(length)))
        assert self.manager.allocate_slots(request, length, num_lookahead_tokens=0) is not None
        request.num_computed_tokens = length
        return request

    def step(self, request: Request, **others: Any) -> Any:
        """The new blocks for the row's next token, as a scheduler asks for them; None: there is no room."""
        request.append_output_token_ids(request.num_tokens % 7)
        new = self.manager.allocate_slots(request, 1, **{"num_lookahead_tokens": 0} | others)
        if new is None:
            return None
        request.num_computed_tokens += 1
        return new.get_block_ids()
