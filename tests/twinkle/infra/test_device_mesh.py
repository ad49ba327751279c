from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinkle import DeviceMesh
from twinkle.errors import ConfigError

AXES = ["dp", "fsdp", "pp", "cp", "ep", "tp"]
sizes = st.fixed_dictionaries({f"{axis}_size": st.integers(1, 3) for axis in AXES})


def test_tensor_parallel_neighbours_are_next_to_each_other_and_share_their_data() -> None:
    mesh = DeviceMesh.from_sizes(dp_size=2, tp_size=2)

    assert mesh.world_size == 4
    assert [mesh.dp_rank(rank) for rank in range(4)] == [0, 0, 1, 1]
    assert [mesh.tp_rank(rank) for rank in range(4)] == [0, 1, 0, 1]
    assert [mesh.data_rank(rank) for rank in range(4)] == [0, 0, 1, 1]


def test_fsdp_inside_dp_keeps_the_order_of_the_data() -> None:
    mesh = DeviceMesh.from_sizes(dp_size=2, fsdp_size=3)

    assert mesh.data_size == 6
    assert [mesh.data_rank(rank) for rank in range(6)] == [0, 1, 2, 3, 4, 5]
    assert [mesh.fsdp_rank(rank) for rank in range(6)] == [0, 1, 2, 0, 1, 2]


@given(sizes)
def test_coordinates_and_ranks_are_inverse(given_sizes: dict[str, int]) -> None:
    mesh = DeviceMesh.from_sizes(**given_sizes)
    positions = [mesh.coordinates(rank) for rank in range(mesh.world_size)]

    assert [mesh.rank_at(**position) for position in positions] == list(range(mesh.world_size))
    assert len({tuple(position.items()) for position in positions}) == mesh.world_size
    assert all(list(position) == AXES for position in positions)


@given(sizes)
def test_each_axis_has_its_own_query(given_sizes: dict[str, int]) -> None:
    mesh = DeviceMesh.from_sizes(**given_sizes)
    for rank in range(mesh.world_size):
        queries = {axis: getattr(mesh, f"{axis}_rank")(rank) for axis in AXES}

        assert queries == mesh.coordinates(rank)


@given(sizes)
def test_ranks_that_hold_one_model_together_are_consecutive(given_sizes: dict[str, int]) -> None:
    mesh = DeviceMesh.from_sizes(**given_sizes)
    parts = [mesh.data_rank(rank) for rank in range(mesh.world_size)]

    assert parts == sorted(parts)
    assert set(parts) == set(range(mesh.data_size))


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("size", [0, -1, 1.0, True, "2"])
def test_a_size_that_cannot_be_is_named(axis: str, size: Any) -> None:
    with pytest.raises(ConfigError, match=f"DeviceMesh.{axis}_size is {size!r}"):
        DeviceMesh.from_sizes(**{f"{axis}_size": size})


@pytest.mark.parametrize("rank", [-1, 4])
def test_a_rank_outside_is_refused(rank: int) -> None:
    with pytest.raises(ConfigError, match=f"rank is {rank}; this mesh has the ranks 0 to 3"):
        DeviceMesh.from_sizes(dp_size=4).dp_rank(rank)


def test_coordinates_outside_are_refused() -> None:
    mesh = DeviceMesh.from_sizes(dp_size=2)
    with pytest.raises(ConfigError, match="coordinate dp is 2"):
        mesh.rank_at(dp=2)
    with pytest.raises(ConfigError, match="unknown mesh axis 'sp'"):
        mesh.rank_at(sp=0)


@given(sizes)
def test_models_are_runs_of_ranks_and_their_output_is_in_the_last_pipeline_stage(given_sizes: dict[str, int]) -> None:
    mesh = DeviceMesh.from_sizes(**given_sizes)
    models = [mesh.model_ranks(part) for part in range(mesh.data_size)]

    assert [rank for model in models for rank in model] == list(range(mesh.world_size))
    assert {len(model) for model in models} == {mesh.model_size} == {mesh.replica.world_size}
    for part, model in enumerate(models):
        place = mesh.coordinates(mesh.output_rank(part))
        assert {mesh.data_rank(rank) for rank in model} == {part}
        assert mesh.output_rank(part) in model
        assert [place[axis] for axis in ("pp", "cp", "ep", "tp")] == [mesh.pp_size - 1, 0, 0, 0]


def test_a_part_outside_is_refused() -> None:
    with pytest.raises(ConfigError, match="data_rank is 2; this mesh has the parts 0 to 1"):
        DeviceMesh.from_sizes(dp_size=2, tp_size=2).model_ranks(2)


def test_a_mesh_is_written_as_its_axes() -> None:
    assert str(DeviceMesh.from_sizes(dp_size=2, tp_size=4)) == "dp=2 tp=4 (8 ranks)"
    assert str(DeviceMesh()) == "dp=1 (1 rank)"
