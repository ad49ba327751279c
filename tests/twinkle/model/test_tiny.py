"""Models made on the spot."""

import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from twinkle.errors import ConfigError
from twinkle.model.config import ModelConfig, TinySettings
from twinkle.model.tiny import make_tiny, make_tiny_opt, make_tiny_qwen2


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("make", [make_tiny_opt, make_tiny_qwen2])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_weights(make: object, tmp_path: Path) -> None:
    assert callable(make)
    rng = torch.get_rng_state()

    first, again, other = (digests(make(tmp_path / str(i), seed=seed)) for i, seed in enumerate((3, 3, 4)))

    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}
    assert torch.equal(torch.get_rng_state(), rng)


def test_the_tiny_opt_has_about_106_thousand_parameters_and_heads_of_32(tiny_opt: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_opt)

    assert 104_000 < model.num_parameters() < 108_000
    assert model.config.hidden_size // model.config.num_attention_heads == 32
    assert not model.config.tie_word_embeddings


def test_opt_reads_and_writes_its_alphabet(tiny_opt: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_opt)

    assert tokenizer("0725")["input_ids"] == [1, 4, 11, 6, 9]
    assert tokenizer("07x", add_special_tokens=False)["input_ids"] == [4, 11, tokenizer.unk_token_id]
    assert tokenizer.decode([4, 11, 2], skip_special_tokens=True) == "07"
    chat = [{"role": "user", "content": "07"}, {"role": "assistant", "content": "70"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<s>0770"


def test_words_are_single_tokens_wherever_they_stand(tmp_path: Path) -> None:
    folder = make_tiny_opt(tmp_path, alphabet="seventy ", words="seven seventy plus")
    tokenizer = AutoTokenizer.from_pretrained(folder)

    ids = tokenizer("seventy plus seven", add_special_tokens=False)["input_ids"]

    assert tokenizer.convert_ids_to_tokens(ids) == ["seventy", " ", "plus", " ", "seven"]
    assert tokenizer.decode(ids) == "seventy plus seven"


def test_qwen2_reads_and_writes_any_text(tiny_qwen2: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    text = "Zwölf  plus\n\tdrei → 15 🙂"

    ids = tokenizer(text)["input_ids"]

    assert len(ids) == len(text.encode())
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("end_is_rare", [True, False])
def test_special_tokens_hardly_ever_come_out_at_the_start(end_is_rare: bool, tmp_path: Path) -> None:
    folder = make_tiny_opt(tmp_path, alphabet="01234567", end_is_rare=end_is_rare)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompts = torch.randint(4, 12, (64, 5), generator=torch.Generator().manual_seed(0))

    with torch.no_grad():
        probability_V = model(prompts).logits.softmax(-1).mean((0, 1))

    assert probability_V[[0, 1, 3]].max() < 1e-3
    assert (probability_V[2] < 1e-3) == end_is_rare
    assert probability_V[4:].min() > 0.02


def test_the_configuration_names_the_model(tmp_path: Path) -> None:
    tiny = TinySettings(alphabet="ab", words="cd", layers=1, max_positions=16)

    opt = make_tiny(ModelConfig(id="tiny-opt", tiny=tiny), tmp_path / "opt")
    qwen2 = make_tiny(ModelConfig(id="tiny-qwen2", tiny=tiny), tmp_path / "qwen2")

    assert AutoModelForCausalLM.from_pretrained(opt).config.vocab_size == 4 + 3
    assert AutoModelForCausalLM.from_pretrained(qwen2).config.num_hidden_layers == 1
    with pytest.raises(ConfigError, match="did you mean tiny-opt"):
        make_tiny(ModelConfig(id="tiny-optt"), tmp_path / "none")
