"""Labels are where an assistant writes, whatever the template says about it."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests.twinkle.template.conftest import CHATML, bpe_tokenizer
from tests.twinkle.template.conversations import PARIS, WEATHER, labelled, text, turns
from twinkle.errors import DataError
from twinkle.template import ChatMLTemplate, Template
from twinkle.template.named import _source

WITHOUT_GENERATION = (
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As Qwen3's: what was thought in earlier turns is left out.
FORGETFUL = (
    "{% set last = messages | length - 1 %}{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' }}"
    "{% if message.role == 'assistant' and loop.index0 == last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ message.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTENT = st.text(st.sampled_from("ab \nüß你<|>"), max_size=6)
PAIR = st.tuples(CONTENT, CONTENT)


def tokenizer_with(source: str) -> Any:
    tokenizer = bpe_tokenizer(*CHATML, eos="<|im_end|>")
    tokenizer.chat_template = source
    return tokenizer


SAYING, SILENT = tokenizer_with(_source("chatml")), tokenizer_with(WITHOUT_GENERATION)


@settings(deadline=None, max_examples=60)
@given(st.lists(PAIR, min_size=1, max_size=3), CONTENT)
def test_labels_are_the_answers_with_and_without_generation_tags(pairs: list[tuple[str, str]], system: str) -> None:
    messages = [("system", system)]
    for asked, answered in pairs:
        messages += [("user", asked), ("assistant", answered)]
    for tokenizer in (SAYING, SILENT):
        template = Template(tokenizer)
        example = template.encode(turns(*messages))

        assert labelled(tokenizer, example) == "".join(f"{answered}<|im_end|>" for _, answered in pairs)
        assert all(label in (token, -100) for token, label in zip(example["input_ids"], example["labels"], strict=True))
        for end in range(2, len(messages), 2):
            prompt = template.encode(turns(*messages[:end]))
            assert list(example["input_ids"])[: len(prompt["input_ids"])] == list(prompt["input_ids"])
    assert Template(SAYING).encode(turns(*messages)) == Template(SILENT).encode(turns(*messages))


def test_a_prompt_has_no_labels_though_an_assistant_has_spoken() -> None:
    prompt = Template(SILENT).encode(turns(("user", "a"), ("assistant", "b"), ("user", "c")))

    assert "labels" not in prompt
    assert text(SILENT, prompt["input_ids"]).endswith("c<|im_end|>\n<|im_start|>assistant\n")


def test_a_forgetful_template_has_prompts_but_no_labels_in_several_turns() -> None:
    template = Template(tokenizer_with(FORGETFUL))
    messages = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))

    assert "b<|im_end|>" in text(template.tokenizer, template.encode(turns(*messages[:3]))["input_ids"])
    assert labelled(template.tokenizer, template.encode(turns(*messages[:2]))) == "<think>\n\n</think>\n\nb<|im_end|>"
    with pytest.raises(DataError, match=r"rewrites earlier messages.*token_ids.*chatml"):
        template.encode(turns(*messages))


def test_threads_do_not_mix_their_labels(chatml: Any) -> None:
    template = ChatMLTemplate(chatml)
    examples = [turns(*[("user", "q"), ("assistant", "x" * size)] * 3) for size in range(1, 9)]
    alone = [template.encode(example) for example in examples]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(template.encode, examples * 20)) == alone * 20


def test_nothing_of_the_callers_is_changed(chatml: Any) -> None:
    conversation = turns(("user", "q"), tools=[WEATHER], answer=["kept"])
    conversation["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [{**PARIS, "id": "1"}], "reasoning": {"deep": [1]}},
        {"role": "tool", "content": "fine", "tool_call_id": "1"},
        {"role": "assistant", "content": "ok", "token_ids": [5, 6], "logprobs": [-1.0, -2.0]},
    ]
    before = copy.deepcopy(conversation)
    ChatMLTemplate(chatml, system_prompt="be").encode(conversation)

    assert conversation == before


def test_a_tokenizer_that_begins_with_a_blank_does_so_once() -> None:
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "▁a": 4, "a": 5, "b": 6, "▁b": 7, ":": 8, "▁:": 9}
    core = Tokenizer(models.Unigram([(token, -1.0) for token in vocabulary], unk_id=0))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    ids = Template(tokenizer).encode(turns(("user", "a"), ("assistant", "b"), ("user", "a"), ("assistant", "b")))

    assert tokenizer.convert_ids_to_tokens(ids["input_ids"]) == [
        "<s>",
        "a",
        "</s>",
        "b",
        "</s>",
        "a",
        "</s>",
        "b",
        "</s>",
    ]


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        (
            "{{ raise_exception('roles must alternate') }}",
            "refuses a conversation of the roles user: roles must alternate",
        ),
        ("{{ 1 + messages[0].content }}", "refuses a conversation"),
        ("{{ messages[0].content.gone.further }}", "refuses a conversation"),
    ],
)
def test_a_template_that_raises_is_a_data_error(source: str, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Template(tokenizer_with(source)).encode(turns(("user", "a")))
