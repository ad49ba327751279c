"""Weights in a parcel: what digests depend on, and what arrives."""

import pickle
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from twinkle.errors import WeightSyncError
from twinkle.loop.payload import Version, WeightPayload, _even_parts, digests_of, fingerprint_of

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "b": torch.ones(4, dtype=torch.bfloat16),
    "c": torch.tensor(3),
    "d": torch.zeros(0, 5),
}


def fingerprint(tensors: dict[str, torch.Tensor]) -> str:
    return fingerprint_of(digests_of(tensors))


def test_the_fingerprint_depends_on_names_types_shapes_and_bytes_alone() -> None:
    same = {name: TENSORS[name].clone() for name in reversed(TENSORS)}
    others = [
        {**TENSORS, "a": TENSORS["a"].reshape(3, 2)},
        {**TENSORS, "a": TENSORS["a"].nextafter(torch.tensor(9.0))},
        {**TENSORS, "b": TENSORS["b"].float()},
        {"A": TENSORS["a"], "b": TENSORS["b"], "c": TENSORS["c"], "d": TENSORS["d"]},
        {"a": TENSORS["a"], "b": TENSORS["b"], "c": TENSORS["c"]},
    ]

    assert fingerprint(same) == fingerprint(TENSORS)
    assert len({fingerprint(other) for other in others} | {fingerprint(TENSORS)}) == 6


def test_threads_give_the_digests_that_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digests_of(TENSORS)
    monkeypatch.setattr("twinkle.loop.payload.BYTES_OF_A_THREAD", 8)
    monkeypatch.setattr("os.cpu_count", lambda: 6)

    assert len(_even_parts(list("abcd"), [t.nbytes for t in TENSORS.values()])) > 1
    assert list(digests_of(TENSORS).items()) == list(expected.items())


@given(st.lists(st.integers(0, 2**24)))
def test_threads_share_the_bytes_out_evenly(sizes: list[int]) -> None:
    names = [f"{index:04}" for index in range(len(sizes))]
    size_of = dict(zip(names, sizes, strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.cpu_count", lambda: 8)
        parts = _even_parts(names, sizes)

    assert [name for part in parts for name in part] == names
    assert all(
        sum(size_of[name] for name in part) <= sum(sizes) / len(parts) + max(sizes) for part in parts[1:] and parts
    )


def test_the_fingerprint_does_not_care_how_a_tensor_lies_in_memory() -> None:
    transposed = {"a": torch.arange(6.0).view(3, 2).t().contiguous().t()}

    assert fingerprint(transposed) == fingerprint({"a": transposed["a"].contiguous()})


def test_a_payload_arrives_as_it_was_sent_and_is_sent_on_as_it_came() -> None:
    sent = WeightPayload.of(Version(1, 2), TENSORS, {"r": 8})
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(sent, protocol=5, buffer_callback=buffers.append)
    read_only = [bytes(buffer) for buffer in buffers]
    arrived = pickle.loads(pickled, buffers=read_only)
    again = pickle.loads(pickle.dumps(arrived))

    for payload in (arrived, again):
        payload.verify()
        assert (payload.version, payload.adapter_config, payload.fingerprint) == ((1, 2), {"r": 8}, sent.fingerprint)
        assert payload.tensors.keys() == TENSORS.keys()
        for name, tensor in TENSORS.items():
            assert payload.tensors[name].dtype == tensor.dtype
            assert_close(payload.tensors[name], tensor, rtol=0, atol=0)
    assert len(pickled) < 4096
    assert len(read_only) == 1


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({**TENSORS, "a": TENSORS["a"].nextafter(torch.tensor(9.0))}, "a"),
        ({name: TENSORS[name] for name in "abd"}, "c"),
        ({**TENSORS, "aa": torch.ones(1)}, "aa"),
    ],
)
def test_what_is_not_as_it_was_sent_is_named(changed: dict[str, torch.Tensor], name: str) -> None:
    payload = replace(WeightPayload.of(Version(0, 7), TENSORS), tensors=changed)

    with pytest.raises(WeightSyncError, match=rf"version 0\.7 changed on their way to the sampler: {name} was sent as"):
        payload.verify()
