"""The rows of one training step as padded tensors, and their cut into micro-batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from twinkle.data_format import InputFeature
from twinkle.errors import DataError
from twinkle.template.encoding import IGNORED_LABEL


@dataclass(frozen=True)
class TrainBatch:
    """B rows of prompt + response, padded on the right to T tokens. Column t of every [B, T] belongs to token t.

    Attributes:
        input_ids_BT: token ids (int64).
        attention_mask_BT: 1 on prompt and response, 0 on padding (int64).
        response_mask_BT: 1 on response tokens alone (float32).
        old_logprobs_BT: log-probs of the policy that sampled, 0 outside of the response (float32).
        advantages_B: one per row (float32).
        weights_B: 1 for a sample, 0 for a row that only pads a group (float32).
        ref_logprobs_BT: log-probs of the reference model, or None; `Policy.train_step` fills them in when it needs
            them.
    """

    input_ids_BT: Tensor
    attention_mask_BT: Tensor
    response_mask_BT: Tensor
    old_logprobs_BT: Tensor
    advantages_B: Tensor
    weights_B: Tensor
    ref_logprobs_BT: Tensor | None = None

    def __len__(self) -> int:
        return len(self.input_ids_BT)

    @property
    def position_ids_BT(self) -> Tensor:
        """Place of each token among the tokens that are no padding, so that padding on either side changes nothing."""
        return (self.attention_mask_BT.cumsum(1) - 1).clamp(min=0)

    @property
    def live_BT(self) -> Tensor:
        """Response tokens of rows that count (bool)."""
        return (self.response_mask_BT > 0) & (self.weights_B > 0)[:, None]

    def rows(self, start: int, stop: int) -> "TrainBatch":
        """Rows start .. stop - 1, without the columns behind their last token."""
        width = int(self.attention_mask_BT[start:stop].any(0).nonzero()[-1]) + 1
        cut = (slice(start, stop), slice(0, width))
        return TrainBatch(
            self.input_ids_BT[cut],
            self.attention_mask_BT[cut],
            self.response_mask_BT[cut],
            self.old_logprobs_BT[cut],
            self.advantages_B[start:stop],
            self.weights_B[start:stop],
            None if self.ref_logprobs_BT is None else self.ref_logprobs_BT[cut],
        )

    def to(self, device: torch.device) -> "TrainBatch":
        """The same batch on `device`."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items() if tensor is not None})


def make_batch(
    prompt_ids: Sequence[Sequence[int] | Tensor],
    response_ids: Sequence[Sequence[int] | Tensor],
    old_logprobs: Sequence[Sequence[float] | Tensor],
    advantages: Sequence[float] | Tensor,
    *,
    weights: Sequence[float] | Tensor | None = None,
    response_masks: Sequence[Sequence[int] | Tensor] | None = None,
    pad_token_id: int = 0,
) -> TrainBatch:
    """A batch of the given rows, in their order; `weights` is 1 for every row when left out.

    `response_masks` is 1 on the tokens of a response that were sampled and 0 on those that others said in between (the
    log-probs there are not read); when left out, all were sampled.

    Raises:
        DataError: a prompt is empty (nothing would predict its response), or a response and its log-probs differ in
            length.
    """
    prompts, responses = [_ids(row) for row in prompt_ids], [_ids(row) for row in response_ids]
    logprobs = list(map(_floats, old_logprobs))
    masks = (
        [torch.ones(len(row)) for row in responses] if response_masks is None else list(map(_floats, response_masks))
    )
    for row, lengths in enumerate(
        zip(*(map(len, each) for each in (prompts, responses, logprobs, masks)), strict=True)
    ):
        _check_row(row, *lengths)
    before = [torch.zeros(len(prompt)) for prompt in prompts]
    sampled = [torch.where(mask > 0, logp, 0.0) for mask, logp in zip(masks, logprobs, strict=True)]
    return TrainBatch(
        _padded(prompts, responses, pad_token_id),
        _padded([torch.ones_like(row) for row in prompts], [torch.ones_like(row) for row in responses]),
        _padded(before, masks),
        _padded(before, sampled),
        _floats(advantages),
        torch.ones(len(prompts)) if weights is None else _floats(weights),
    )


def batch_of(features: Sequence[InputFeature], advantages: Sequence[float] | Tensor) -> TrainBatch:
    """A batch of conversations of one or more turns, as a template encodes those whose answers were sampled: what is
    trained are the labels, with the sampler's log-probs; the ids are taken as they are.

    Raises:
        DataError: a feature has no labels or lacks their log-probs.
    """
    rows = []
    for row, feature in enumerate(features):
        labels, logprobs = list(feature.get("labels", ())), list(feature.get("logprobs", ()))
        mask = [int(label != IGNORED_LABEL) for label in labels]
        if not any(mask) or len(logprobs) != len(labels):
            raise DataError(
                f"row {row} has {sum(mask)} labels and {len(logprobs)} log-probs for {len(labels)} tokens; encode a "
                "conversation that ends with an assistant message, and whose assistant messages have token_ids and "
                "logprobs."
            )
        ids, begin = list(feature["input_ids"]), mask.index(1)
        rows.append((ids[:begin], ids[begin:], logprobs[begin:], mask[begin:]))
    prompts, responses, old_logprobs, masks = zip(*rows, strict=True)
    return make_batch(prompts, responses, old_logprobs, advantages, response_masks=masks)


def cut_rows(lengths: Sequence[int], *, rows: int, tokens: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of micro-batches over rows of the given lengths, in order, all of them covered once.

    Each has at most `rows` rows and `tokens` tokens counted with padding to its longest row (0: no bound); a row that
    is longer than `tokens` goes alone.
    """
    start, longest = 0, 0
    for index, length in enumerate(lengths):
        longest = max(longest, length)
        size = index - start + 1
        if size > 1 and ((rows and size > rows) or (tokens and size * longest > tokens)):
            yield start, index
            start, longest = index, length
    if len(lengths):
        yield start, len(lengths)


def _check_row(row: int, prompt: int, response: int, logprobs: int, mask: int) -> None:
    if not prompt or response != logprobs:
        raise DataError(
            f"row {row} has {prompt} prompt tokens, {response} response tokens and {logprobs} log-probs; "
            "a prompt has at least one token, and each response token one log-prob."
        )
    if response != mask:
        raise DataError(f"row {row} has {response} response tokens, but a mask of {mask}; they must be as many.")


def _ids(row: Sequence[int] | Tensor) -> Tensor:
    return torch.as_tensor(row, dtype=torch.int64)


def _floats(row: Sequence[float] | Tensor) -> Tensor:
    return torch.as_tensor(row, dtype=torch.float32)


def _padded(firsts: Sequence[Tensor], seconds: Sequence[Tensor], padding: int = 0) -> Tensor:
    """[B, T]: of each row the first and then the second, and padding behind them."""
    rows = [torch.cat(pair) for pair in zip(firsts, seconds, strict=True)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)
