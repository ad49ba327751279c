"""In place of vLLM's sampler: tokens are drawn as TorchSampler draws them, and both log-probabilities are reported.

vLLM reports either raw log-probabilities or those of the distribution sampled from, and draws from generators whose
numbers depend on its version. Here a token comes from twinkle.sampler.choosing and the counter-based numbers of (seed,
sample index, position), whatever else is in the batch. R = rows, V = vocabulary, K = reported log-probabilities.
"""

from typing import Any

import torch
from torch import Tensor
from vllm.v1.outputs import LogprobsTensors, SamplerOutput
from vllm.v1.sample.sampler import Sampler as VLLMSampler

from twinkle.sampler.choosing import Choice, choose
from twinkle.sampler.vllm.rows import RowBatch, RowBook

# Most logits that are turned to float64 at once: 64 MB.
CHUNK = 8 * 2**20


class RowSampler(VLLMSampler):  # type: ignore[misc]
    """vLLM's sampler for its own trial runs, ours for every request."""

    def forward(self, logits: Tensor, sampling_metadata: Any, *args: Any, **kwargs: Any) -> SamplerOutput:
        """One token per row and its log-probabilities [R, 2 + K], in the columns of messages.py."""
        processors = sampling_metadata.logitsprocs.argmax_invariant
        book = next((processor for processor in processors if isinstance(processor, RowBook)), None)
        batch = None if book is None else book.batch(*logits.shape)
        if batch is None:
            return super().forward(logits, sampling_metadata, *args, **kwargs)
        parts = [_draw(batch, part) for part in _parts(logits, batch)]
        tokens_R, ids_RK, logp_RK = (torch.cat(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True))
        return SamplerOutput(
            sampled_token_ids=tokens_R.to(torch.int32).unsqueeze(-1),
            logprobs_tensors=LogprobsTensors(ids_RK.to(torch.int32), logp_RK, tokens_R),
        )


Part = tuple[Tensor, Tensor | None, Tensor, Tensor | None]


def _parts(logits_RV: Tensor, batch: RowBatch) -> list[Part]:
    """Logits, row numbers (None = all rows), random numbers and forbidden tokens of as many rows as fit."""
    rows, vocab_size = logits_RV.shape
    uniforms_R, forbidden_RV = batch.uniforms_R(), batch.forbidden_RV()
    step = max(1, CHUNK // vocab_size)
    if rows <= step:
        return [(logits_RV, None, uniforms_R, forbidden_RV)]
    return [
        (logits_RV[at], at, uniforms_R[at], None if forbidden_RV is None else forbidden_RV[at])
        for at in torch.arange(rows, device=logits_RV.device).split(step)
    ]


def _draw(batch: RowBatch, part: Part) -> tuple[Tensor, Tensor, Tensor]:
    logits_RV, at, uniforms_R, forbidden_RV = part
    controls = batch.controls if at is None else batch.controls.select(at)
    choice = choose(logits_RV, controls, uniforms_R, forbidden_RV)
    return choice.tokens_R, *_report(choice, min(batch.most_reported, logits_RV.shape[-1]))


def _report(choice: Choice, count: int) -> tuple[Tensor, Tensor]:
    ids_R2 = torch.stack((choice.tokens_R, choice.tokens_R), dim=1)
    logp_R2 = torch.stack((choice.logprobs_R, choice.sampler_logprobs_R), dim=1)
    if count == 0:
        return ids_R2, logp_R2
    logp_RK, ids_RK = choice.raw_logp_RV.topk(count, dim=-1)
    return torch.cat((ids_R2, ids_RK), dim=1), torch.cat((logp_R2, logp_RK), dim=1)
