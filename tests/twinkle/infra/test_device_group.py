from typing import Any

import pytest

from twinkle import DeviceGroup
from twinkle.errors import ConfigError
from twinkle.infra.device_aliases import aliases_in, with_aliases


@pytest.mark.parametrize(
    ("group", "resources"),
    [
        (DeviceGroup("g", 4, "cpu"), {"CPU": 2}),
        (DeviceGroup("g", 4, "cpu", cpus_per_rank=0), {}),
        (DeviceGroup("g", 4, "cuda"), {"GPU": 2}),
        (DeviceGroup("g", 4, "cuda", cpus_per_rank=3), {"CPU": 6, "GPU": 2}),
        (DeviceGroup("g", 4, "npu"), {"NPU": 2}),
    ],
)
def test_two_ranks_ask_for_whole_devices(group: DeviceGroup, resources: dict[str, float]) -> None:
    assert group.resources(2) == resources


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": ""}, "DeviceGroup.name is ''"),
        ({"ranks": 0}, "DeviceGroup.ranks of 'g' is 0"),
        (
            {"device_type": "gpu"},
            r"DeviceGroup.device_type of 'g' is 'gpu'; it must be one of \('cpu', 'cuda', 'npu'\)",
        ),
        ({"cpus_per_rank": 0.5}, "DeviceGroup.cpus_per_rank of 'g' is 0.5; it must be an integer >= 0"),
        ({"ranks_per_node": 3}, "DeviceGroup.ranks_per_node of 'g' is 3; it must divide its 4 ranks"),
        ({"label_selector": "pool"}, "DeviceGroup.label_selector of 'g' is 'pool'"),
        ({"label_selector": {"pool": 1}}, "DeviceGroup.label_selector of 'g' is {'pool': 1}"),
    ],
)
def test_a_group_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeviceGroup(**({"name": "g", "ranks": 4, "device_type": "cpu"} | settings))


def test_a_group_can_be_a_key() -> None:
    labelled = DeviceGroup("g", 4, "cpu", label_selector={"pool": "a"})

    assert {labelled: 1}[DeviceGroup("g", 4, "cpu", label_selector={"pool": "a"})] == 1
    assert labelled != DeviceGroup("g", 4, "cpu", label_selector={"pool": "b"})


def test_aliases_are_read_as_pairs() -> None:
    assert aliases_in({}) == {}
    assert aliases_in({"TWINKLE_DEVICE_ALIASES": " cuda:cpu, npu:cuda "}) == {"cuda": "cpu", "npu": "cuda"}


@pytest.mark.parametrize("text", ["cuda", "cuda:gpu", "gpu:cpu", "cuda=cpu"])
def test_an_alias_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigError, match=f"TWINKLE_DEVICE_ALIASES is '{text}'"):
        aliases_in({"TWINKLE_DEVICE_ALIASES": text})


def test_groups_move_with_one_warning_and_take_no_cpus_unless_they_say_so() -> None:
    groups = [
        DeviceGroup("sampler", 4, "cuda"),
        DeviceGroup("trainer", 2, "cuda", cpus_per_rank=2),
        DeviceGroup("reward", 1, "cpu"),
    ]
    with pytest.warns(UserWarning, match=r"'sampler' \(cuda on cpu\), 'trainer' \(cuda on cpu\)") as warned:
        moved = with_aliases(groups, {"cuda": "cpu"})

    assert len(warned) == 1
    assert [(group.device_type, group.cpus_per_rank) for group in moved] == [("cpu", 0), ("cpu", 2), ("cpu", None)]


def test_nothing_to_move_warns_of_nothing() -> None:
    groups = [DeviceGroup("reward", 1, "cpu")]

    assert with_aliases(groups, {"cuda": "cpu"}) == groups
