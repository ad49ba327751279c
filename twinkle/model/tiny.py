"""Small random models, made on the spot in the ordinary `save_pretrained` format (config, safetensors, tokenizer).

`make_tiny_opt` learns within seconds on a CPU (learned positions); `make_tiny_qwen2` has rotary positions and serves
parity tests and examples. Any local model folder takes the same path through the code as these two.
Heads are 32 wide, because vLLM's attention on a CPU serves no narrower LoRA model.
"""

import re
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
)
from transformers.modeling_utils import PreTrainedModel

from twinkle.choices import one_of
from twinkle.model.config import TINY_MODELS, ModelConfig
from twinkle.model.folder import share_weights, without_progress_bars

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
DIGITS = "0123456789"
ALPHABET = DIGITS + "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,:;!?'\"+-*/=()%$&@#_\n"
RARITY = 8.0
CHAT_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"


def make_tiny(config: ModelConfig, folder: str | Path) -> Path:
    """Write the model that `config.id` (tiny-opt or tiny-qwen2) names, shaped by `config.tiny`, from `config.seed`."""
    shape = asdict(config.tiny)
    if one_of("model.id", config.id, TINY_MODELS) == "tiny-opt":
        return make_tiny_opt(folder, seed=config.seed, **shape)
    for name in ("alphabet", "words", "end_is_rare"):
        del shape[name]
    return make_tiny_qwen2(folder, seed=config.seed, **shape)


def make_tiny_opt(
    folder: str | Path,
    *,
    seed: int = 0,
    alphabet: str = ALPHABET,
    words: str = "",
    end_is_rare: bool = True,
    hidden_size: int = 64,
    layers: int = 2,
    max_positions: int = 64,
    init_std: float = 0.08,
) -> Path:
    """Write an OPT of about 110k parameters with random weights into `folder` and return the folder.

    The same arguments give the same bytes, and the global RNG is left as it was. `alphabet` lists the characters that
    get a token each, in that order after the special tokens, and `words`, separated by blanks, become one token each
    wherever they stand; `max_positions` bounds prompt + response in tokens.

    As in a model that has seen text, special tokens hardly ever come out at the start: each is e^-8 times as likely as
    a character; with `end_is_rare=False` the end token is as likely as a character.
    """
    tokenizer = character_tokenizer(alphabet, max_positions, words)
    config = OPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        word_embed_proj_dim=hidden_size,
        ffn_dim=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        max_position_embeddings=max_positions,
        init_std=init_std,
        dropout=0.0,
        tie_word_embeddings=False,
        **_special_ids(tokenizer),
    )
    model = _initialised(OPTForCausalLM, config, seed)
    ends = [tokenizer.eos_token_id] if end_is_rare else []
    _make_rare(model, [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.unk_token_id, *ends])
    return _write(folder, model, tokenizer)


def make_tiny_qwen2(
    folder: str | Path,
    *,
    seed: int = 0,
    hidden_size: int = 64,
    layers: int = 2,
    max_positions: int = 1024,
    init_std: float = 0.06,
) -> Path:
    """Write a Qwen2 (rotary positions, grouped keys) with random weights into `folder` and return the folder.

    Its tokenizer is Qwen2's own kind, with one token per byte of UTF-8: any text can be encoded, and nothing is
    unknown.
    """
    tokenizer = byte_tokenizer(max_positions)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=4 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=max(1, hidden_size // 64),
        max_position_embeddings=max_positions,
        initializer_range=init_std,
        attention_dropout=0.0,
        tie_word_embeddings=False,
        **_special_ids(tokenizer),
    )
    return _write(folder, _initialised(Qwen2ForCausalLM, config, seed), tokenizer)


def character_tokenizer(alphabet: str, max_length: int, words: str = "") -> PreTrainedTokenizerFast:
    """A tokenizer with one token per character of `alphabet`, after <pad>=0, <s>=1, </s>=2 and <unk>=3.

    Encoding text puts <s> in front (`add_special_tokens=False` leaves it out); so does the chat template, which joins
    the contents of the messages. A character outside of the alphabet becomes <unk>.
    """
    longest_first = sorted(words.split(), key=len, reverse=True)
    pieces = dict.fromkeys([*alphabet, *words.split()])
    vocabulary = {token: index for index, token in enumerate([PAD, BOS, EOS, UNKNOWN, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    pattern = "|".join([*map(re.escape, longest_first), r"[\s\S]"])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocabulary[BOS])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def byte_tokenizer(max_length: int) -> Qwen2Tokenizer:
    """Qwen2's tokenizer without merges: <|endoftext|>=0, <|pad|>=1, then one token per byte; no token in front.

    A class of Qwen2's own is a must: transformers reads the tokenizer of a `qwen2` folder as that class, whatever it
    says.
    """
    end, pad = "<|endoftext|>", "<|pad|>"
    tokens = [end, pad, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(
        vocab={token: index for index, token in enumerate(tokens)},
        merges=[],
        eos_token=end,
        pad_token=pad,
        unk_token=end,
        padding_side="left",
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    return tokenizer


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def _initialised(model_class: type[PreTrainedModel], config: OPTConfig | Qwen2Config, seed: int) -> PreTrainedModel:
    """A model with float32 weights drawn from `seed`; the global RNG is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model_class(config)


def _make_rare(model: PreTrainedModel, tokens: list[int]) -> None:
    """Lower the logits of `tokens` by RARITY: the last norm's first output is the constant 1, and only they read it."""
    norm, head = model.model.decoder.final_layer_norm, model.lm_head
    with torch.no_grad():
        norm.weight[0], norm.bias[0] = 0.0, 1.0
        head.weight[:, 0] = 0.0
        head.weight[tokens, 0] = -RARITY


def _write(folder: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Path:
    with without_progress_bars():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    share_weights(Path(folder))
    return Path(folder)
