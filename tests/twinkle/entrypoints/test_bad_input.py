"""A stranger's mistakes: one clear sentence, the exit code, no traceback, nothing left behind."""

import socket
from pathlib import Path

import pytest

from tests.twinkle.entrypoints.cli import Outcome, Trainer

GOOD_LINE = '{"prompt": "one plus one", "answer": "two"}\n'


def assert_one_sentence(outcome: Outcome, code: int, *parts: str) -> None:
    assert outcome.code == code, outcome
    lines = outcome.err.strip().splitlines()
    assert len(lines) == 1, outcome.err
    assert lines[0].startswith("twinkle-train: ")
    for part in parts:
        assert part in lines[0]
    assert (outcome.left_processes, outcome.left_files) == ([], [])


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("loop.stepz=3", ["'loop.stepz'", "did you mean loop.steps?"]),
        ("+loop.extra=3", ["'loop.extra'"]),
        ("loops.steps=3", ["did you mean loop.steps?"]),
        ("loop.steps=many", ["loop.steps='many': give a whole number."]),
        ("quickstart", ["write key=value; did you mean experiment=quickstart?"]),
        ("--loop.steps=50", ["'--loop.steps=50' is no option", "loop.steps=50."]),
        ("experiment=quikstart", ["experiment=quikstart", "quickstart"]),
        ("loop.steps=[1", ["'loop.steps=[1'"]),
        ("loop.steps=0", ["loop.steps=0", "at least 1"]),
        ("sampler.top_p=0.9", ["sampler.top_p=0.9", "top_p=1.0"]),
        ("sampler.temperature=0", ["sampler.temperature=0"]),
        ("algo.advantage=grpoo", ["grpoo"]),
        ("infra.mode=cloud", ["'cloud'"]),
        ("mesh.trainer_dp=3", ["prompts_per_step=8", "trainer_dp=3"]),
        ("run.resume=nowhere", ["'nowhere'"]),
        ("metrics.port=99999", ["metrics.port=99999"]),
        ("data.reward=no_such_reward", ["no_such_reward"]),
        ("data.reward=no.such:thing", ["no.such:thing"]),
        ("model.id=s3://bucket/model", ["unknown scheme 's3'"]),
        ("run.root=/dev/null/runs", ["run.root='/dev/null/runs'"]),
    ],
)
def test_a_setting_that_cannot_work(trainer: Trainer, override: str, parts: list[str]) -> None:
    assert_one_sentence(trainer.run(override), 2, *parts)
    assert not (trainer.folder / "runs").exists()


def test_an_unknown_model_path(trainer: Trainer) -> None:
    assert_one_sentence(trainer.run("model.id=/no/such/model"), 2, "/no/such/model")


def test_a_model_of_a_hub_in_offline_mode(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_CACHE", str(trainer.folder))

    assert_one_sentence(trainer.run("hub=offline", "model.id=ms://org/model"), 2, "'ms://org/model'", "offline mode")


def test_an_alias_on_the_command_line(trainer: Trainer) -> None:
    outcome = trainer.run("model.id=hf://org/model", r"hub.aliases={hf\://org/model: /no/such/model}")

    assert_one_sentence(outcome, 2, "'hf://org/model' (alias of '/no/such/model')")


def test_a_line_that_is_no_json_is_named_by_file_and_number(trainer: Trainer) -> None:
    path = trainer.folder / "data.jsonl"
    path.write_text(GOOD_LINE * 20 + '{"prompt": \n')

    assert_one_sentence(trainer.run("experiment=jsonl", f"data.path={path}"), 2, f"{path}:21")


def test_a_missing_answer_column_is_named_with_those_that_are_there(trainer: Trainer) -> None:
    path = trainer.folder / "data.jsonl"
    path.write_text('{"prompt": "one", "reply": "two"}\n' * 20)

    assert_one_sentence(trainer.run("experiment=jsonl", f"data.path={path}"), 2, "answer", "reply")


def test_a_missing_data_file(trainer: Trainer) -> None:
    assert_one_sentence(trainer.run("experiment=jsonl", "data.path=/no/such.jsonl"), 2, "/no/such.jsonl")


def test_a_port_in_use(trainer: Trainer) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        assert_one_sentence(trainer.run(f"metrics.port={port}"), 2, f"metrics.port={port}", "in use")


def write_reward(folder: Path, body: str) -> None:
    (folder / "my_reward.py").write_text(f"def reward(prompt, response, answer):\n    {body}\n")


def test_a_reward_that_raises_ends_the_run_and_names_it(trainer: Trainer) -> None:
    write_reward(trainer.folder, "return 1 / 0")

    assert_one_sentence(trainer.run("data.reward=my_reward:reward"), 1, "my_reward:reward", "ZeroDivisionError")


def test_a_reward_that_raises_later_keeps_the_steps_before_it(trainer: Trainer) -> None:
    body = "\n    ".join(
        [
            "global calls",
            "calls = globals().get('calls', 0) + 1",
            "if calls > 200: raise RuntimeError('the judge is away')",
            "return 0.5",
        ]
    )
    write_reward(trainer.folder, body)
    outcome = trainer.run("data.reward=my_reward:reward")

    assert_one_sentence(outcome, 1, "the judge is away")
    assert (trainer.latest / "checkpoints" / "step-000003").is_dir()
    assert (trainer.latest / "report.html").exists()


def test_debug_shows_the_traceback(trainer: Trainer) -> None:
    write_reward(trainer.folder, "return 1 / 0")
    outcome = trainer.run("data.reward=my_reward:reward", "run.debug=true")

    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert outcome.left_processes == []
