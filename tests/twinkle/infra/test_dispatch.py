"""From a call to the replicas' calls and back, on every mesh, without any process."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle import DeviceMesh
from twinkle.errors import ConfigError
from twinkle.infra import Call
from twinkle.infra.collect import collected
from twinkle.infra.dispatch import dispatched, slices
from twinkle.infra.layout import Layout

AXES = ["dp", "fsdp", "pp", "cp", "ep", "tp"]
meshes = st.fixed_dictionaries({f"{axis}_size": st.integers(1, 3) for axis in AXES}).map(
    lambda sizes: DeviceMesh.from_sizes(**sizes)
)


def method(inputs: Any, params: Any = None, *, name: str = "") -> None:
    """What is called."""


def bound(*args: Any, **kwargs: Any) -> inspect.BoundArguments:
    return inspect.signature(method).bind(*args, **kwargs)


def calls(mesh: DeviceMesh, *args: Any, turn: int = 0, how: Any = "slice_dp", **kwargs: Any) -> dict[int, Call]:
    return dispatched(how, mesh, bound(*args, **kwargs), None, turn)


@given(st.integers(0, 50), st.integers(1, 9))
def test_slices_share_everything_out_evenly_and_in_order(items: int, parts: int) -> None:
    found = slices(items, parts)

    assert [index for part in found for index in part] == list(range(items))
    assert all(1 <= len(part) <= -(-items // parts) for part in found)
    assert max(map(len, found), default=0) - min(map(len, found), default=0) <= 1
    assert len(found) == min(items, parts)


@given(meshes, st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_order_is_exact_and_a_model_counts_once_on_every_mesh(
    mesh: DeviceMesh, items: int, turn: int, whole_replicas: bool
) -> None:
    """Every rank answers as a real one would; all but those whose answer counts answer nonsense."""
    layout = Layout(mesh, whole_replicas)
    sent = calls(mesh, list(range(items)), turn=turn)
    served = dict.fromkeys(range(mesh.world_size), 0)
    answers: dict[int, Any] = {}
    for data_rank, call in sent.items():
        for actor in layout.peers(data_rank):
            for rank in layout.ranks[actor]:
                served[rank] += 1
                assert mesh.data_rank(rank) == data_rank
            right = any(mesh.pp_rank(rank) == mesh.pp_size - 1 for rank in layout.ranks[actor])
            answers[actor] = [("done", item) for item in call.args[0]] if right else ["nonsense"]
    results = [answers[layout.output(data_rank)] for data_rank in sent]

    assert collected("flatten", results, list(sent.values())) == [("done", item) for item in range(items)]
    assert collected(lambda parts, offsets: offsets, results, list(sent.values())) == [
        call.args[0][0] for call in sent.values()
    ]
    assert len(sent) == min(items, mesh.data_size)
    assert set(served.values()) <= {0, 1}


@given(meshes, st.booleans())
def test_actors_have_all_ranks_once_and_one_answer_counts_a_data_rank(mesh: DeviceMesh, whole_replicas: bool) -> None:
    layout = Layout(mesh, whole_replicas)
    by_data_rank = [layout.peers(data_rank) for data_rank in range(mesh.data_size)]

    assert [rank for ranks in layout.ranks for rank in ranks] == list(range(mesh.world_size))
    assert [actor for peers in by_data_rank for actor in peers] == list(range(len(layout.ranks)))
    assert all(layout.output(data_rank) in peers for data_rank, peers in enumerate(by_data_rank))
    assert len(layout.ranks) * layout.ranks_per_actor == mesh.world_size
    assert layout.together * layout.ranks_per_actor == mesh.model_size


def test_few_items_and_single_inputs_take_turns() -> None:
    mesh = DeviceMesh.from_sizes(dp_size=3)

    assert [list(calls(mesh, ["a", "b"], turn=turn)) for turn in range(3)] == [[0, 1], [1, 2], [2, 0]]
    assert [list(calls(mesh, {"one": 1}, turn=turn)) for turn in range(4)] == [[0], [1], [2], [0]]
    assert [list(calls(mesh, list("abcd"), turn=turn)) for turn in range(2)] == [[0, 1, 2], [0, 1, 2]]


def test_a_single_input_and_an_empty_list_go_whole_to_one_replica() -> None:
    mesh = DeviceMesh.from_sizes(dp_size=2)

    assert calls(mesh, {"one": 1}, turn=1) == {1: Call(({"one": 1},), {}, 0, None)}
    assert calls(mesh, [], name="x") == {0: Call(([],), {"name": "x"}, 0, 0)}


def test_every_list_is_sliced_alike_and_nothing_else() -> None:
    found = calls(DeviceMesh.from_sizes(dp_size=2), [1, 2, 3], params=[4, 5, 6], name="abc")

    assert [call.args for call in found.values()] == [([1, 2], [4, 5]), ([3], [6])]
    assert [(call.kwargs, call.offset, call.size) for call in found.values()] == [
        ({"name": "abc"}, 0, 2),
        ({"name": "abc"}, 2, 1),
    ]


def test_lists_of_unequal_length_are_named() -> None:
    with pytest.raises(ConfigError, match="inputs has 3 items and params 2"):
        calls(DeviceMesh(), [1, 2, 3], [1, 2])


def test_named_arguments_are_sliced_also_as_tuples_and_only_if_the_inputs_are() -> None:
    mesh, names = DeviceMesh.from_sizes(dp_size=2), ("inputs", "params")

    found = dispatched("slice_dp", mesh, bound((1, 2), [3, 4]), names, 0)
    assert [call.args for call in found.values()] == [((1,), [3]), ((2,), [4])]
    assert dispatched("slice_dp", mesh, bound("ab", [3, 4]), names, 0) == {0: Call(("ab", [3, 4]))}


def test_all_gives_every_data_rank_the_same() -> None:
    found = calls(DeviceMesh.from_sizes(dp_size=2, fsdp_size=2, tp_size=2), [1], how="all")

    assert found == {rank: Call(([1],)) for rank in range(4)}


def test_a_function_dispatches_as_it_likes() -> None:
    def by_key(mesh: DeviceMesh, inputs: dict[int, str]) -> list[Call | None]:
        return [Call((inputs[rank],)) if rank in inputs else None for rank in range(mesh.data_size)]

    mesh = DeviceMesh.from_sizes(dp_size=3)

    assert calls(mesh, {2: "c", 0: "a"}, how=by_key) == {0: Call(("a",)), 2: Call(("c",))}
    with pytest.raises(ConfigError, match="dispatch '<lambda>' returned 1 calls; it must return one Call or None for"):
        calls(mesh, 1, how=lambda mesh, inputs: [Call()])


@pytest.mark.parametrize(
    ("how", "result"),
    [
        ("first", 1.0),
        ("sum", 6.0),
        ("mean", 2.6875),
        (lambda results, offsets: (results, offsets), ([1.0, 2.0, 3.0], [0, 1, 4])),
    ],
)
def test_results_become_one(how: str | Callable[..., Any], result: Any) -> None:
    """The replicas got 1, 3 and 12 items."""
    sent = [Call(offset=0, size=1), Call(offset=1, size=3), Call(offset=4, size=12)]

    assert collected(how, [1.0, 2.0, 3.0], sent) == result


def test_metrics_are_averaged_key_by_key() -> None:
    found = collected("mean", [{"loss": 1.0, "n": 2}, {"loss": 3.0, "n": 4}], [Call(), Call()])

    assert found == {"loss": 2.0, "n": 3.0}


@given(st.lists(st.lists(st.integers(-9, 9), min_size=1, max_size=5), min_size=1, max_size=5))
def test_a_mean_of_means_is_the_mean_over_all_items(parts: list[list[int]]) -> None:
    everything = [item for part in parts for item in part]
    means = [sum(part) / len(part) for part in parts]

    found = collected("mean", means, [Call(size=len(part)) for part in parts])
    assert found == pytest.approx(sum(everything) / len(everything))


def test_the_result_of_a_single_input_is_not_flattened() -> None:
    assert collected("flatten", ["abc"], [Call()]) == "abc"
    assert collected("flatten", [[1], [2]], [Call(), Call()]) == [1, 2]


def test_what_cannot_be_flattened_is_said() -> None:
    with pytest.raises(ConfigError, match="collect 'flatten' got a dict"):
        collected("flatten", [{}, {}], [Call(size=1), Call(size=1)])


def test_no_replica_called_leaves_it_to_a_function() -> None:
    with pytest.raises(ConfigError, match="collect 'sum' got no result"):
        collected("sum", [], [])
    assert collected(lambda results, offsets: len(results), [], []) == 0
