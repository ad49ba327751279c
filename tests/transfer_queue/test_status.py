import json
import math

from hypothesis import given
from hypothesis import strategies as st

from transfer_queue.ledger.explain import Explanation, Reason
from transfer_queue.status import MOST_BYTES, TEXT, Figures, Progress, Status, encode, status_of
from transfer_queue.wire import Stats, Surveyed, TaskStats

FREE = TaskStats(8, 3, 0, 0, {}, {}, False, 1, 0)


def surveyed(*tasks: tuple[str, int, int], reasons: tuple[Reason, ...] = ()) -> Surveyed:
    stands = [Explanation(name, None, ("x",), needed, ready, reasons) for name, ready, needed in tasks]
    return Surveyed(Stats({name: FREE for name, _, _ in tasks}, [4, 5], 0, 0, 99, 8, partitions_limit=3), stands)


def document(*args: object) -> dict[str, object]:
    found = json.loads(encode(status_of(*args)))  # type: ignore[arg-type]
    assert isinstance(found, dict)
    return found


def test_the_document_of_a_run() -> None:
    progress = Progress()
    progress.update(lineage=1, step=7, version="1.7", reward=0.5)
    progress.update(step=8, checkpoint_step=5)
    seen = document(
        surveyed(("reward", 8, 8), ("train", 384, 512), reasons=(Reason("field_missing", 128, "without 'reward'"),)),
        progress.now,
        None,
    )

    assert seen["schema"] == 1
    figures = ("attempt", "lineage", "step", "version", "reward", "checkpoint_step")
    assert [seen[name] for name in figures] == [None, 1, 8, "1.7", 0.5, 5]
    assert seen["queue"] == {"task": "train", "ready": 384, "required": 512, "summary": "384/512"}
    assert seen["partitions"] == {"alive": 2, "limit": 3, "oldest": 4, "newest": 5}
    assert seen["bytes"] == {"stored": 99, "capacity": None}
    assert (seen["ready"], seen["reason"]) == (True, "")
    tasks = seen["tasks"]
    assert isinstance(tasks, list)
    assert tasks[0] == {
        "task": "reward", "ready": 8, "required": 8, "is_ready": True, "waiting": 1,
        "reasons": [{"code": "field_missing", "rows": 128, "detail": "without 'reward'"}],
    }  # fmt: skip


def test_a_task_that_never_asked_is_not_the_queue_in_one_line() -> None:
    seen = document(surveyed(("reward", 8, 8), ("train", 0, 0)), Figures(), "stuck")

    assert seen["queue"] == {"task": "reward", "ready": 8, "required": 8, "summary": "8/8"}
    assert (seen["ready"], seen["reason"]) == (False, "stuck")


def test_a_reward_that_is_no_number_is_left_out() -> None:
    progress = Progress()
    progress.update(reward=math.nan)

    assert progress.now.reward is None


@given(st.text(min_size=TEXT - 2, max_size=2000), st.integers(1, 60), st.integers(0, 100))
def test_whatever_the_queue_holds_the_document_is_bounded(text: str, tasks: int, reasons: int) -> None:
    why = tuple(Reason("dropped", 1, f"dropped ({text})") for _ in range(reasons))
    status = status_of(surveyed(*((f"{text}{i}", 1, 2) for i in range(tasks)), reasons=why), Figures(version="1"), text)
    text_of_it = encode(status)

    assert len(text_of_it) <= MOST_BYTES
    assert len(status.tasks) == min(tasks, 32)
    assert all(len(task.task) <= TEXT for task in status.tasks)
    assert len(status.reason) <= TEXT
    assert json.loads(text_of_it)["schema"] == Status.__struct_defaults__[0] == 1


def test_the_longest_text_that_there_can_be_fits() -> None:
    why = tuple(Reason("dropped", 1, "\x00" * 5000) for _ in range(50))
    text = encode(
        status_of(surveyed(*(("\x00" * 400 + str(i), 1, 2) for i in range(40)), reasons=why), Figures(), None)
    )

    assert len(text) <= MOST_BYTES
