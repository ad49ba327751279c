"""In place of vLLM's sampler: tokens are drawn as TorchSampler draws them, and both log-probabilities are reported.

vLLM reports either raw log-probabilities or those of the distribution sampled from, and draws from generators whose
numbers depend on its version. R = rows, V = vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.sampler import Sampler as VLLMSampler

from twinkle.sampler.vllm.rows import RowBook


class RowSampler(VLLMSampler):  # type: ignore[misc]
    """vLLM's sampler for its own trial runs, ours for every request."""

    def forward(self, logits: Tensor, sampling_metadata: Any, *args: Any, **kwargs: Any) -> SamplerOutput:
        """One token per row of the logits [R, V], with the log-probabilities of RowBatch.draw."""
        processors = sampling_metadata.logitsprocs.argmax_invariant
        book = next((processor for processor in processors if isinstance(processor, RowBook)), None)
        batch = None if book is None else book.batch(*logits.shape)
        if batch is None:
            return super().forward(logits, sampling_metadata, *args, **kwargs)
        tokens_R, ids_RK, logp_RK = batch.draw(logits)
        return SamplerOutput(
            sampled_token_ids=tokens_R.to(torch.int32).unsqueeze(-1),
            logprobs_tensors=LogprobsTensors(ids_RK.to(torch.int32), logp_RK, tokens_R),
        )
