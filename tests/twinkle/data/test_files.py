"""Prompts out of files: JSON lines, `datasets`, and the table behind both."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import msgspec
import pytest

from twinkle.data import DataConfig, PromptRow, make_source
from twinkle.data.hf import read_dataset
from twinkle.data.jsonl import read_jsonl
from twinkle.data.record import Columns
from twinkle.data.table import TablePrompts
from twinkle.errors import DataError

COLUMNS = Columns()
RECORDS = [{"prompt": f"{i}+1", "answer": str(i + 1), "other": i} for i in range(10)]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "data.jsonl"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def lines(records: list[Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def pairs(rows: list[PromptRow]) -> list[tuple[Any, str]]:
    return [(row.prompt, row.answer) for row in rows]


def test_jsonl_rows_keep_their_order_and_lines(write: Callable[[str], Path]) -> None:
    path = write("\n" + lines([{"q": "1+1", "a": 2}, {"q": "zwölf", "a": "12"}]))

    rows = read_jsonl(path, Columns("q", "a"))

    assert rows == [PromptRow("1+1", "2", f"{path}:2"), PromptRow("zwölf", "12", f"{path}:3")]


def test_a_prompt_may_be_chat_messages(write: Callable[[str], Path]) -> None:
    messages = [{"role": "system", "content": "Add."}, {"role": "user", "content": "1+1", "name": "x"}]

    row = read_jsonl(write(lines([{"prompt": messages, "answer": "2"}])), COLUMNS)[0]

    assert row.prompt == messages


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "The weather of a city.", "parameters": CITY}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
TALK = [
    {"role": "user", "content": "Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "name": None},
    {"role": "tool", "content": "fine"},
]


@pytest.mark.parametrize("how", ["objects", "text", "parquet"])
def test_a_prompt_may_have_tools_and_what_they_were_called_with(tmp_path: Path, how: str) -> None:
    tools: Any = json.dumps([WEATHER]) if how == "text" else [WEATHER]
    records = [{"messages": TALK, "tools": tools, "answer": "fine"}, {"messages": "hi", "tools": None, "answer": "ho"}]
    columns, path = Columns("messages", "answer", "tools"), tmp_path / "data.jsonl"
    if how == "parquet":  # which fills every key in, and knows no column of text and messages
        records[1]["messages"] = [{"role": "user", "content": "hi"}]
        path = tmp_path / "data.parquet"
        datasets.Dataset.from_list(records).to_parquet(str(path))
        called, plain = read_dataset(path, columns)
    else:
        path.write_text(lines(records))
        called, plain = read_jsonl(path, columns)

    said = [TALK[0], {"role": "assistant", "content": "", "tool_calls": [CALL]}, TALK[2]]
    assert called.prompt == {"messages": said, "tools": [{"type": "function", "function": WEATHER}]}
    assert plain.prompt in ("hi", [{"role": "user", "content": "hi"}])
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(called.prompt)) == called.prompt


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"prompt": "a", "answer": "b"}\n{"prompt": \n', [":2: no JSON"]),
        ('{"prompt": "a", "answer": "b"}\n["a", "b"]\n', [":2: a list where an object"]),
        (
            '{"prompt": "a", "reply": "b"}\n',
            [":1: there is no column 'answer'", "'prompt', 'reply'", "data.answer_column"],
        ),
        ('{"question": "a", "answer": "b"}\n', [":1: there is no column 'prompt'", "data.prompt_column"]),
        ('{"prompt": 3, "answer": "b"}\n', [":1: column 'prompt' holds 3"]),
        ('{"prompt": [], "answer": "b"}\n', [":1: column 'prompt' holds []"]),
        ('{"prompt": [{"role": "user"}], "answer": "b"}\n', [":1: column 'prompt': message 0 has the content None"]),
        (
            '{"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "answer": "b"}\n',
            [":1: column 'prompt' ends with what an assistant said"],
        ),
        ('{"prompt": "a", "answer": null}\n', [":1: column 'answer' holds None"]),
        ("\n \n", ["holds no row"]),
    ],
)
def test_a_bad_line_is_named(write: Callable[[str], Path], text: str, parts: list[str]) -> None:
    path = write(text)

    with pytest.raises(DataError) as error:
        read_jsonl(path, COLUMNS)

    assert all(part in str(error.value) for part in [str(path), *parts])


@pytest.mark.parametrize(
    ("tools", "part"), [("[", "column 'tools': "), ([{}], "column 'tools': tool 0 is {}"), (3, "'tools' is 3")]
)
def test_bad_tools_are_named(write: Callable[[str], Path], tools: Any, part: str) -> None:
    path = write(lines([{"prompt": "a", "answer": "b", "tools": tools}]))

    with pytest.raises(DataError) as error:
        read_jsonl(path, Columns(tools="tools"))
    assert f"{path}:1: " in str(error.value)
    assert part in str(error.value)
    with pytest.raises(DataError, match=r"there is no column 'calls' .* set data\.tools_column"):
        read_jsonl(path, Columns(tools="calls"))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"prompt": "ö"}'.encode("latin-1"))

    with pytest.raises(DataError, match=r"none\.jsonl' cannot be read: No such file"):
        read_jsonl(tmp_path / "none.jsonl", COLUMNS)
    with pytest.raises(DataError, match="no UTF-8"):
        read_jsonl(tmp_path / "latin.jsonl", COLUMNS)


def test_an_epoch_has_every_training_row_once_and_each_epoch_its_own_order(write: Callable[[str], Path]) -> None:
    config = DataConfig(name="jsonl", path=str(write(lines(RECORDS))), held_out_prompts=3)
    source = make_source(config, 0)
    held_out = pairs(source.held_out())

    first, second = pairs(source.draw(0, 7)), pairs(source.draw(7, 7))

    assert sorted(first) == sorted(second) == sorted({*pairs(read_jsonl(config.path, COLUMNS))} - {*held_out})
    assert first != second
    assert pairs(source.draw(5, 4)) == first[5:] + second[:2]
    assert pairs(make_source(config, 0).draw(0, 14)) == first + second
    assert pairs(make_source(config, 1).held_out()) != held_out


def asked(row: PromptRow) -> str:
    return row.prompt if isinstance(row.prompt, str) else row.prompt[0]["content"]


@pytest.mark.parametrize("seed", range(8))
def test_a_prompt_on_several_lines_is_held_out_or_drawn_never_both(seed: int) -> None:
    rows = [PromptRow(f"{i % 4}", f"answer {i}", f"f:{i}") for i in range(8)]
    rows += [PromptRow([{"role": "user", "content": "1"}], "as a message", "f:8")]
    source = TablePrompts(rows, seed=seed, held_out_prompts=2, origin="f")

    held_out, epoch = source.held_out(), source.draw(0, 4 if "1" in map(asked, source.held_out()) else 5)

    assert len({*map(asked, held_out)}) == len(held_out) == 2
    assert {*map(asked, epoch)} == {"0", "1", "2", "3"} - {*map(asked, held_out)}
    assert sorted(epoch, key=rows.index) == [row for row in rows if asked(row) not in map(asked, held_out)]
    assert source.known_prompts() == rows[:4]


def test_a_table_that_is_too_small_is_refused(write: Callable[[str], Path]) -> None:
    config = DataConfig(name="jsonl", path=str(write(lines(RECORDS))), held_out_prompts=10)

    with pytest.raises(DataError, match=r"has 10 different prompts, and data.held_out_prompts=10 leaves none"):
        make_source(config, 0)
    with pytest.raises(DataError, match=r"has 1 different prompts"):
        TablePrompts([PromptRow("p", "a")] * 3, seed=0, held_out_prompts=1, origin="f")


def saved(kind: str, folder: Path) -> Path:
    """RECORDS as a file or folder of that kind."""
    dataset = datasets.Dataset.from_list(RECORDS)
    path = folder / f"data.{kind}"
    if kind == "parquet":
        dataset.to_parquet(path)
    elif kind == "csv":
        dataset.to_csv(path)
    elif kind in ("json", "jsonl"):
        path.write_text(lines(RECORDS))
    elif kind == "folder":
        dataset.save_to_disk(path)
    else:
        datasets.DatasetDict({"train": dataset, "test": dataset.select([0])}).save_to_disk(path)
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "jsonl", "folder", "splits"])
def test_datasets_reads_local_files_and_folders(kind: str, tmp_path: Path) -> None:
    path = saved(kind, tmp_path)

    rows = read_dataset(path, COLUMNS)

    assert [row.prompt for row in rows] == [record["prompt"] for record in RECORDS]
    assert [row.answer for row in rows] == [record["answer"] for record in RECORDS]
    assert rows[2].place == f"{path}:row 3"
    source = make_source(DataConfig(name="hf", path=str(path), held_out_prompts=2), 0)
    assert {*pairs(source.draw(0, 8)), *pairs(source.held_out())} == {*pairs(rows)}


def test_a_split_is_chosen_by_name(tmp_path: Path) -> None:
    path = saved("splits", tmp_path)

    assert len(read_dataset(path, COLUMNS, split="test")) == 1
    with pytest.raises(DataError, match=r"no split 'tset' \(splits: 'train', 'test'\)"):
        read_dataset(path, COLUMNS, split="tset")


def test_what_datasets_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    (tmp_path / "data.txt").write_text("a")
    (tmp_path / "empty").mkdir()

    for name, part in [
        ("none.csv", "is not there"),
        ("data.txt", "is no file that data=hf reads"),
        ("broken.parquet", "cannot be read by datasets"),
        ("empty", "cannot be read by datasets"),
    ]:
        with pytest.raises(DataError) as error:
            read_dataset(tmp_path / name, COLUMNS)
        assert part in str(error.value)
        assert name in str(error.value)
    with pytest.raises(DataError, match=r"row 1: there is no column 'reply' \(columns: 'prompt', 'answer', 'other'\)"):
        read_dataset(saved("parquet", tmp_path), Columns(answer="reply"))
