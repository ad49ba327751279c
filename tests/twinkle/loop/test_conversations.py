"""Training on conversations with tools: the template renders both, the queue carries them."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.runs import trained
from twinkle.errors import DataError
from twinkle.loop.records import read_rows
from twinkle.model.tiny import make_tiny_qwen2

TEMPLATE = (
    "{% if not tools %}{{ raise_exception('no tools') }}{% endif %}"
    "{% for tool in tools %}{{ tool.function.name }} {% endfor %}"
    "{% for message in messages %}{{ message.content }}{% for call in message.tool_calls %}"
    "{{ call.function.name }}({{ call.function.arguments.city }}){% endfor %}\n{% endfor %}"
)
TALK = [
    {"role": "user", "content": "?"},
    {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {"city": "Rome"}}}]},
    {"role": "tool", "content": "fine"},
]


@pytest.fixture
def settings(tmp_path: Path) -> list[str]:
    """A model whose chat template insists on tools, and a file of conversations that have some."""
    folder = make_tiny_qwen2(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(folder))
    talks = [[{**TALK[0], "content": f"{i}?"}, *TALK[1:]] for i in range(12)]
    records = [{"messages": talk, "tools": [{"name": "f"}, {"name": "g"}], "answer": "x"} for talk in talks]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return [
        "experiment=jsonl", "model=local", f"model.id={folder}", f"data.path={tmp_path / 'data.jsonl'}",
        "data.prompt_column=messages", "data.reward=exact_match", "data.held_out_prompts=2", "loop.steps=1",
        "loop.samples_every=1", "loop.prompts_per_step=2", "loop.samples_per_prompt=2",
    ]  # fmt: skip


def test_prompts_with_tools_are_rendered_sampled_and_trained_on(tmp_path: Path, settings: list[str]) -> None:
    run = trained(tmp_path / "runs", *settings, "data.tools_column=tools")

    assert read_rows(run / "metrics.jsonl")[0]["logp_diff_max"] <= 1e-5
    assert read_rows(run / "samples.jsonl")[0]["prompt"].endswith("?\nassistant: \ntool: fine")


def test_a_prompt_that_the_template_refuses_is_named_before_the_run(tmp_path: Path, settings: list[str]) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl:\d+: the prompt 'fine'.*no tools"):
        trained(tmp_path / "runs", *settings)
