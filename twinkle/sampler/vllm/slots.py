"""The slot of a row's next token, without asking what only longer steps have to be asked.

For every row of every step vLLM works out what to free, how many blocks to take and what to put into its prefix cache,
and for all tokens but one in a block the answers are: nothing, none, nothing. On a CPU that is a twelfth of a step of
64 rows of a small model; on a GPU it is time in which the device waits.
"""

from typing import Any

from vllm.v1.core.kv_cache_manager import KVCacheBlocks
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager


class _NoBlocks(KVCacheBlocks):  # type: ignore[misc]
    """Knows that it is empty, without looking."""

    def get_block_ids(self, allow_none: bool = False, **groups: Any) -> Any:
        return None if allow_none else super().get_block_ids(**groups)


def skip_idle_allocation(scheduler: Any) -> None:
    """Let a row that decodes within the last of its blocks go on at once; everything else is vLLM's to decide, and so
    is every row of a model with more than one kind of cache, or with another kind than that of full attention."""
    manager = scheduler.kv_cache_manager
    kinds = manager.coordinator.single_type_managers
    if len(kinds) != 1 or type(kinds[0]) is not FullAttentionManager or scheduler.connector is not None:
        return
    allocate, nothing = manager.allocate_slots, _NoBlocks(manager.empty_kv_cache_blocks.blocks)
    blocks_of, size = kinds[0].req_to_blocks, kinds[0].block_size

    def allocate_slots(request: Any, num_new_tokens: int, *, num_lookahead_tokens: int = 0, **others: Any) -> Any:
        if num_new_tokens == 1 and num_lookahead_tokens == 0 and not others:
            end = request.num_computed_tokens + 1
            # A token that fills its block lets vLLM put that block into the prefix cache.
            if end % size and end <= len(blocks_of.get(request.request_id, ())) * size:
                return nothing
        return allocate(request, num_new_tokens, num_lookahead_tokens=num_lookahead_tokens, **others)

    manager.allocate_slots = allocate_slots
