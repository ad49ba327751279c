"""Nobody who sends nonsense harms the queue or its good clients, and nothing that arrives is ever unpickled."""

import ast
from pathlib import Path

import transfer_queue
from tests.transfer_queue.fuzz import run


def test_bad_messages_get_typed_answers_and_good_clients_go_on() -> None:
    counts = run(20_000, seed=1)

    assert counts["takes the envelope"] >= counts["messages"] / 2
    assert counts["replies"] > 0.9 * counts["messages"]  # all but those that have no reply, such as end_read


def test_nothing_of_the_queue_knows_how_to_unpickle() -> None:
    forbidden = {"pickle", "cloudpickle", "marshal", "shelve", "dill"}
    for path in Path(transfer_queue.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not forbidden & {name.split(".")[0] for name in names}, path
            assert not (isinstance(node, ast.Attribute) and node.attr in ("recv_pyobj", "send_pyobj", "loads")
                        and path.name != "controller.py" and "json" not in ast.unparse(node)), path  # fmt: skip
