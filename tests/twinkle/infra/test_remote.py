"""Remote classes in this process: everything but processes."""

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import twinkle
from twinkle import DeviceGroup, DeviceMesh, remote_class, remote_function
from twinkle.errors import ConfigError, RemoteTimeoutError
from twinkle.infra import current_rank, get_device_placement, submit, torch_environment
from twinkle.infra.remote import RemoteFunction, declared


@pytest.fixture(autouse=True)
def _clean_runtime() -> Iterator[None]:
    yield
    twinkle.initialize("local")


class Base:
    @remote_function(dispatch="slice_dp", collect="sum")
    def count(self, items: list[int]) -> int:
        return len(items)


@remote_class(actors="replica", concurrency=2)
class Counter(Base):
    def __init__(self, start: int, device_mesh: DeviceMesh | None = None, remote_group: str | None = None) -> None:
        self.start, self.device_mesh, self.remote_group = start, device_mesh, remote_group

    def count(self, items: list[int]) -> int:
        return self.start + len(items)

    @property
    @remote_function
    def value(self) -> int:
        return self.start

    @remote_function
    def fail(self) -> None:
        raise ValueError("no")


class Child(Counter):
    @remote_function(collect="sum")
    @property
    def twice(self) -> int:
        return 2 * self.start


class Async:
    async def method(self) -> None:
        pass


def test_without_ray_the_class_is_what_it_was() -> None:
    twinkle.initialize("local", [DeviceGroup("g", 1, "cpu")])
    plain = Counter(3, DeviceMesh(), remote_group="g")

    assert type(plain) is Counter
    assert (plain.count([1, 2]), plain.value, plain.remote_group) == (5, 3, "g")
    assert pickle.loads(pickle.dumps(plain)).start == 3
    assert type(Child(1)) is Child


def test_an_override_is_declared_as_what_it_overrides() -> None:
    assert list(declared(Counter)) == ["count", "fail", "value"]
    assert declared(Child) == {**declared(Counter), "twice": RemoteFunction(collect="sum")}
    assert (declared(Counter)["count"].dispatch, declared(Counter)["count"].collect) == ("slice_dp", "sum")
    assert (declared(Counter)["value"].dispatch, declared(Counter)["value"].collect) == ("all", "first")


@pytest.mark.parametrize("remote_group", [None, "g"])
def test_a_mesh_of_several_ranks_needs_mode_ray(remote_group: str | None) -> None:
    twinkle.initialize("local", [DeviceGroup("g", 1, "cpu")])
    with pytest.raises(
        ConfigError, match=r"Counter got the device_mesh dp=2 tp=2 \(4 ranks\), but the mode is 'local'"
    ):
        Counter(3, DeviceMesh.from_sizes(dp_size=2, tp_size=2), remote_group=remote_group)


def test_wrong_arguments_are_the_constructors_to_refuse() -> None:
    with pytest.raises(TypeError, match=r"__init__\(\) missing 1 required positional argument: 'start'"):
        Counter(device_mesh=DeviceMesh())


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda: remote_function(dispatch="slice"), "dispatch='slice' is unknown; choose one of: slice_dp, all; did"),
        (lambda: remote_function(collect="max"), "collect='max' is unknown; choose one of: flatten, first, mean, sum"),
        (lambda: remote_class(actors="all"), "actors='all' is unknown; choose one of: rank, replica"),
        (lambda: remote_class(concurrency=0), "concurrency is 0; it must be an integer >= 1"),
        (lambda: remote_function(Async.method), "Async.method is async; a remote function is a plain one"),
        (lambda: remote_class(Base), "Base.__init__ has no argument 'device_mesh'; a remote class needs it"),
    ],
)
def test_a_declaration_that_cannot_be(declare: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        declare()


def test_submit_works_on_plain_objects_too() -> None:
    plain = Counter(3)
    future = submit(plain.count, [1])

    assert future.result(10) == 4
    assert future.done()
    with pytest.raises(ValueError, match="no"):
        submit(plain.fail).result(10)


def test_a_future_that_takes_too_long_says_so() -> None:
    import threading

    gate = threading.Event()
    future = submit(gate.wait, 30)
    with pytest.raises(RemoteTimeoutError, match=r"Event\.wait did not end within 0\.01 s"):
        future.result(0.01)
    assert not future.done()
    gate.set()
    assert future.result(10)


def test_this_process_is_rank_0_of_1_and_can_make_a_process_group() -> None:
    environment = torch_environment()

    assert (current_rank().rank, current_rank().world_size, current_rank().data_rank) == (0, 1, 0)
    assert {**environment, "MASTER_PORT": ""} == {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "",
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": "1",
    }
    assert 1024 < int(environment["MASTER_PORT"]) < 65536


def test_the_placement_of_one_process() -> None:
    twinkle.initialize("local", [DeviceGroup("g", 1, "cpu")])

    assert get_device_placement() == "mode local: everything runs in this process\n  device group 'g': 1 rank on cpu"
