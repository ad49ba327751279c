"""A byte-level BPE tokenizer with merges, so that decoding and tokenizing again is not the identity."""

from functools import cache
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

CHATML = ("<|im_start|>", "<|im_end|>")
LLAMA3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|python_tag|>")
TEXT = "hello world, the weather in Paris is fine; user assistant system tool name arguments parameters query\n\n" * 4


@cache
def _core() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT], trainer)
    return str(tokenizer.to_str())


def bpe_tokenizer(*special: str, eos: str) -> Any:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_core()), clean_up_tokenization_spaces=False
    )
    tokenizer.add_special_tokens({"eos_token": eos, "additional_special_tokens": list(special)})
    return tokenizer


@pytest.fixture
def chatml() -> Any:
    """As Qwen's: no BOS, turns end with <|im_end|>, which is EOS."""
    return bpe_tokenizer(*CHATML, "<|endoftext|>", eos="<|im_end|>")


@pytest.fixture
def llama3() -> Any:
    tokenizer = bpe_tokenizer(*LLAMA3, eos="<|eot_id|>")
    tokenizer.bos_token = "<|begin_of_text|>"
    return tokenizer
