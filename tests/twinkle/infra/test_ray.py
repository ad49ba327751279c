"""Objects on device groups of a real Ray, on one machine."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import twinkle
from tests.twinkle.infra.ray_classes import Ranks, Replicas, ended, placement_groups, until
from twinkle import DeviceGroup, DeviceMesh, get_device_placement
from twinkle.errors import ConfigError, DataError, InfraError, RankLostError, RemoteTimeoutError
from twinkle.infra import current_runtime, submit

WIDE = DeviceMesh.from_sizes(dp_size=2, tp_size=2)
FREE = {"device_type": "cpu", "cpus_per_rank": 0}


@pytest.fixture(scope="module")
def four(ray_cluster: Any) -> Iterator[None]:
    """Ray with groups of four ranks on the two cores of a small machine."""
    twinkle.initialize(
        "ray",
        [DeviceGroup("ranks", 4, **FREE), DeviceGroup("replicas", 4, **FREE), DeviceGroup("spare", 2, **FREE)],
        env={"OTHER_X": "y"},
    )
    yield
    twinkle.initialize("local")
    until(lambda: placement_groups() == 0)


@pytest.fixture(scope="module")
def ranks(four: None) -> Ranks:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TWINKLE_X", "x")
        return Ranks("tag", device_mesh=DeviceMesh.from_sizes(dp_size=2, pp_size=2), remote_group="ranks")


@pytest.fixture(scope="module")
def replicas(four: None) -> Replicas:
    return Replicas("tag", WIDE, remote_group="replicas")


def test_an_actor_is_a_rank_that_knows_itself(ranks: Ranks) -> None:
    found: Any = ranks.whoami()

    assert [each["rank"] for each in found] == [1, 3]  # where the outputs of the two models arise
    assert [each["data_rank"] for each in found] == [0, 1]
    assert [each["mesh"] for each in found] == ["dp=2 pp=2 (4 ranks)"] * 2
    assert [each["group"] for each in found] == [("ranks", "ranks")] * 2
    assert [(each["environ"]["TWINKLE_X"], each["environ"]["OTHER_X"]) for each in found] == [("x", "y")] * 2
    assert [each["world_size"] for each in found] == [4, 4]


def test_an_actor_is_a_replica_that_is_all_of_its_models_ranks(replicas: Replicas) -> None:
    found: Any = replicas.whoami()

    assert [each["ranks"] for each in found] == [[0, 1], [2, 3]]
    assert [each["mesh"] for each in found] == ["tp=2 (2 ranks)"] * 2
    assert len({each["pid"] for each in found}) == 2


def test_lists_are_shared_out_and_come_back_in_order(ranks: Ranks, replicas: Replicas) -> None:
    for items in (range(9), range(2), range(1)):
        assert ranks.double(list(items)) == [2 * item for item in items]
        assert replicas.double(list(items)) == [2 * item for item in items]
    assert ranks.double([]) == []
    assert ranks.total(1.5) == replicas.total(1.5) == 3.0


def test_small_calls_take_turns_and_empty_slices_call_nobody(replicas: Replicas) -> None:
    before: Any = replicas.seen
    first, second = replicas.where({"single": 1}), replicas.where(["list"])
    replicas.double([1])
    after: Any = replicas.seen

    assert {first, second[0]} == {0, 1}
    assert sum(after) - sum(before) == 1


def test_a_handle_has_what_is_declared_and_nothing_else(ranks: Ranks) -> None:
    assert isinstance(ranks, Ranks)
    assert repr(ranks) == "<Ranks on device group 'ranks', dp=2 pp=2 (4 ranks)>"
    with pytest.raises(AttributeError, match="has no declared attribute 'secret'; declared with remote_function: all_"):
        ranks.secret()
    with pytest.raises(AttributeError, match="no declared attribute 'tag'"):
        ranks.tag  # noqa: B018
    with pytest.raises(TypeError, match="missing a required argument: 'items'"):
        ranks.double()


def test_an_error_is_the_methods_own_with_rank_and_call_site_while_others_hang(ranks: Ranks) -> None:
    with pytest.raises(DataError, match="row 3 is bad") as caught:
        ranks.fail(2)  # here
    ranks.release()
    line = next(number for number, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "# here" in text)
    first, second = caught.value.__notes__

    assert re.fullmatch(r"raised at rank 2 of 4 in group 'ranks', process \d+ on .+", first)
    assert second == (
        f"Ranks.fail was called at {__file__}:{line} in "
        "test_an_error_is_the_methods_own_with_rank_and_call_site_while_others_hang"
    )


def test_futures_are_of_one_call_each_and_raise_where_they_are_asked(replicas: Replicas) -> None:
    futures = [submit(replicas.double, [index]) for index in range(4)]
    failing = submit(replicas.fail, 0, unpicklable=True)

    assert [future.result(20) for future in futures] == [[0], [2], [4], [6]]
    assert all(future.done() for future in futures)
    with pytest.raises(InfraError, match="Unpicklable: two words") as caught:
        failing.result(20)
    replicas.release()
    assert "test_ray.py" in caught.value.__notes__[1]


def test_a_generator_is_no_result(replicas: Replicas) -> None:
    with pytest.raises(ConfigError, match=r"Replicas\.generator returned a generator; declare it with stream=True"):
        replicas.generator()


def test_calls_share_an_actor_and_urgent_ones_do_not_wait(replicas: Replicas) -> None:
    first, second = submit(replicas.meet), submit(replicas.meet)

    assert (first.result(20), second.result(20)) == (True, True)
    sleeping = [submit(replicas.sleep) for _ in range(3)]
    with pytest.raises(RemoteTimeoutError, match=r"Replicas\.sleep did not end within 0\.2 s at ranks 0-1 of Replicas"):
        sleeping[0].result()
    replicas.wake()
    assert [each.result(20) for each in sleeping] == [None] * 3


def test_a_stream_brings_the_items_of_all_replicas_as_the_callers_items(ranks: Ranks, replicas: Replicas) -> None:
    words = ["ab", "c", "def"]
    expected = sorted((index, letter) for index, word in enumerate(words) for letter in word)

    assert sorted(replicas.spell(words)) == sorted(ranks.spell(words)) == expected
    assert list(replicas.spell([])) == []


@pytest.mark.parametrize("end", ["close", "with", "forget"])
def test_the_end_of_a_stream_ends_it_at_every_replica(replicas: Replicas, end: str) -> None:
    before: Any = replicas.told()
    stream: Any = replicas.spell(["a", "b"], endless=True)
    assert {next(stream)[0], next(stream)[0]} <= {0, 1}
    if end == "with":
        with stream:
            next(stream)
    elif end == "close":
        stream.close()
        assert list(stream) == []
    del stream

    def closed() -> bool:
        now: Any = replicas.told()
        return [events[len(old) :] for events, old in zip(now, before, strict=True)] == [["begun", "closed"]] * 2

    until(closed)


def test_a_stream_may_be_closed_by_another_thread(replicas: Replicas) -> None:
    stream: Any = replicas.countdown()
    closing = threading.Timer(0.2, stream.close)
    closing.start()

    assert list(stream) == []
    closing.join()


def test_an_iterator_with_a_close_of_its_own_is_closed_at_once(replicas: Replicas) -> None:
    with replicas.countdown():
        pass

    assert replicas.double([1]) == [2]


def test_handles_travel(replicas: Replicas, ray_cluster: Any) -> None:
    @ray_cluster.remote(num_cpus=0)
    def elsewhere(handle: Replicas) -> tuple[list[int], list[Any], str]:
        try:
            handle.close()
        except InfraError as error:
            return handle.double([1, 2, 3]), sorted(handle.spell(["a", "b"])), str(error)
        raise AssertionError("a copy was closed")

    doubled, spelled, refusal = ray_cluster.get(elsewhere.remote(replicas), timeout=60)

    assert (doubled, spelled) == ([2, 4, 6], [(0, "a"), (1, "b")])
    assert refusal.endswith("was made by another process; it is closed there")


def test_ranks_form_a_torch_process_group(ranks: Ranks) -> None:
    assert ranks.all_reduce(1.0) == 2 * (1 + 2 + 3 + 4)


def test_the_placement_shows_every_rank(ranks: Ranks, replicas: Replicas) -> None:
    text = get_device_placement()

    assert "device group 'ranks': 4 ranks on cpu, held by Ranks: dp=2 pp=2 (4 ranks), one actor a rank" in text
    assert "device group 'replicas': 4 ranks on cpu, held by Replicas: dp=2 tp=2 (4 ranks), one actor a replica" in text
    assert "device group 'spare': 2 ranks on cpu, free: 2 x {no device, no CPU} on" in text
    pids = [each["pid"] for each in replicas.whoami()]
    rows = [line.split() for line in text.splitlines() if line.endswith(tuple(map(str, pids)))]
    assert [(row[:4], row[-1]) for row in rows] == [
        (["0", "0", "0", "0"], str(pids[0])),
        (["1", "0", "0", "1"], str(pids[0])),
        (["2", "1", "1", "0"], str(pids[1])),
        (["3", "1", "1", "1"], str(pids[1])),
    ]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Ranks(device_mesh=WIDE, remote_group="spare"),
            r"device_mesh is dp=2 tp=2 \(4 ranks\), but device group",
        ),
        (lambda: Ranks(remote_group="spar"), "unknown device group 'spar'; known groups: 'ranks', 'replicas', 'spare'"),
        (lambda: Ranks(remote_group="ranks"), "device group 'ranks' is held by Ranks; close that first"),
        (lambda: Ranks(device_mesh=WIDE), "but remote_group names no device group"),
    ],
)
def test_objects_that_cannot_be(ranks: Ranks, make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


def test_what_fails_to_be_built_is_closed_and_leaves_its_group_free(four: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rank 1 is broken") as caught:
        Ranks(str(tmp_path), remote_group="spare")
    assert "raised at rank 1 of 2 in group 'spare'" in caught.value.__notes__[0]
    assert "Ranks(...) was called at" in caught.value.__notes__[1]
    assert (tmp_path / "closed").exists()

    with Ranks("whole", remote_group="spare") as handle:
        found = handle.whoami()
        assert [each["mesh"] for each in found] == ["dp=2 (2 ranks)"] * 2
    until(lambda: all(ended(each["pid"]) for each in found))
    with pytest.raises(InfraError, match="Ranks in group 'spare' was closed"):
        handle.double([1])


def test_a_lost_rank_is_named_and_its_group_can_be_used_again(four: None) -> None:
    handle = Ranks(remote_group="spare")
    with pytest.raises(
        RankLostError, match=r"rank 1 of Ranks in group 'spare' was lost; Ranks\.die was called at .*Ray"
    ):
        handle.die(1)
    with pytest.raises(RankLostError, match="rank 1 of Ranks in group 'spare' was lost"):
        handle.double([1, 2])
    with pytest.raises(RankLostError, match="rank 1 of Ranks in group 'spare' was lost"):
        list(handle.spell(["a", "b"]))
    handle.close()

    again = Ranks(remote_group="spare")
    assert again.double([1, 2]) == [2, 4]
    again.close()


def test_a_handle_that_nobody_has_any_more_is_closed(four: None) -> None:
    handle = Ranks(remote_group="spare")
    pids = [each["pid"] for each in handle.whoami()]
    method = handle.total
    del handle
    assert method() == 2.0
    del method

    with Ranks(remote_group="spare") as again:  # which waits for the end of the one before
        assert again.total() == 2.0
    until(lambda: all(map(ended, pids)))
    assert "'spare': 2 ranks on cpu, nothing set apart" in get_device_placement()


def test_ranks_that_the_cluster_has_not_got_are_told_and_nothing_is_left(ranks: Ranks, replicas: Replicas) -> None:
    before = current_runtime()
    asked = [DeviceGroup("small", 2, "cpu"), DeviceGroup("large", 3, "cuda", label_selector={"pool": "a"})]
    with pytest.raises(
        ConfigError,
        match=r"'large' asks for 3 ranks as 3 x {GPU: 1} on nodes with {pool: a}, beside 'small' 2 x {CPU: 1}; the Ray "
        r"cluster could not give that within 0\.5 s; free: node .+ {CPU: 0 of 2}",
    ):
        twinkle.initialize("ray", asked, timeout_s=0.5)

    assert current_runtime() is before
    until(lambda: placement_groups() == 2)
    assert ranks.double([1]) == replicas.double([1]) == [2]
    with Ranks(remote_group="spare") as spare:
        assert spare.double([1]) == [2]


def test_the_gpus_of_a_script_run_on_a_small_cpu(four: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWINKLE_DEVICE_ALIASES", "cuda:cpu")
    with pytest.warns(UserWarning, match=r"'sampler' \(cuda on cpu\)"):
        twinkle.initialize("ray", groups=[DeviceGroup(name="sampler", ranks=4, device_type="cuda")])
    with Replicas(device_mesh=DeviceMesh.from_sizes(dp_size=4), remote_group="sampler") as handle:
        assert handle.double(list(range(6))) == [0, 2, 4, 6, 8, 10]


def test_no_cluster_at_an_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(ConfigError, match=r"no Ray cluster answers at '127\.0\.0\.1:9'"):
        twinkle.initialize("ray", address="127.0.0.1:9", timeout_s=1)
    monkeypatch.setenv("RAY_ADDRESS", "ray://127.0.0.1:10001")
    with pytest.raises(ConfigError, match="the address of the Ray cluster is 'ray://127"):
        twinkle.initialize("ray")


def test_something_else_at_an_address_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(
            ConfigError, match=rf"what answers at '{address}' did not speak like a Ray head within 0\.3 s"
        ):
            twinkle.initialize("ray", address=address, timeout_s=0.3)


def test_another_cluster_than_the_one_at_hand_is_refused(ray_cluster: Any) -> None:
    with pytest.raises(ConfigError, match="this process is connected to the Ray cluster at"):
        twinkle.initialize("ray", address="127.0.0.1:9")


@pytest.mark.gpu
def test_a_rank_on_cuda_sees_its_own_gpu_only(ray_cluster: Any) -> None:
    twinkle.initialize("ray", [DeviceGroup("trainer", 1, "cuda")])
    with Ranks(remote_group="trainer") as handle:
        assert len(handle.whoami()[0]["devices"]) == handle.gpus() == 1
    twinkle.initialize("local")
