from collections.abc import Iterator
from typing import Any

import pytest

import twinkle
from twinkle import DeviceGroup
from twinkle.errors import ConfigError
from twinkle.infra import current_runtime


@pytest.fixture(autouse=True)
def _clean_runtime() -> Iterator[None]:
    yield
    twinkle.initialize("local")


def test_groups_are_known_by_name() -> None:
    group = DeviceGroup(name="sampler", ranks=1, device_type="cpu")
    runtime = twinkle.initialize("local", groups=[group])

    assert runtime is current_runtime()
    assert runtime.group("sampler") is group


def test_an_unknown_group_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown device group 'sampler'; known groups: none"):
        current_runtime().group("sampler")
    twinkle.initialize("local", groups=[DeviceGroup("trainer", 1, "cpu")])
    with pytest.raises(ConfigError, match="unknown device group 'sampler'; known groups: 'trainer'"):
        current_runtime().group("sampler")


def test_an_unknown_mode_is_refused_and_changes_nothing() -> None:
    before = twinkle.initialize("local", groups=[DeviceGroup("sampler", 1, "cpu")])
    with pytest.raises(ConfigError, match="mode='rai' is unknown; choose one of: local, ray; did you mean ray"):
        twinkle.initialize("rai", groups=[DeviceGroup(name="sampler", ranks=4, device_type="cuda")])

    assert current_runtime() is before


def test_aliases_count_in_mode_local_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINKLE_DEVICE_ALIASES", "cuda:cpu")
    with pytest.warns(UserWarning, match="TWINKLE_DEVICE_ALIASES moves device groups") as warned:
        runtime = twinkle.initialize("local", [DeviceGroup("sampler", 1, "cuda")])

    assert runtime.group("sampler").device_type == "cpu"
    assert [each.filename for each in warned] == [__file__]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([DeviceGroup("a", 1, "cpu"), DeviceGroup("a", 1, "cuda")], "two device groups are named 'a'"),
        ([DeviceGroup("a", 2, "cpu")], "device group 'a' has 2 ranks; mode 'local' runs 1 rank"),
        (["a"], "groups holds 'a'"),
    ],
)
def test_groups_that_cannot_be_honoured(groups: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        twinkle.initialize("local", groups=groups)


@pytest.mark.parametrize("name", ["timeout_s", "call_timeout_s"])
def test_deadlines_are_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} of initialize is 0; it must be a number of seconds > 0"):
        twinkle.initialize("local", **{name: 0})
