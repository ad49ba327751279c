"""Weights on a board: whoever looks finds a whole version, the newest."""

import gc
import os
import stat
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from twinkle.errors import WeightSyncError
from twinkle.loop.payload import Version, WeightPayload
from twinkle.loop.weight_board import WeightFile, board_at

CONFIG = {"r": 8, "target_modules": ["q_proj"], "lora_alpha": 16}


def payload(step: int) -> WeightPayload:
    tensors = {
        "a": torch.arange(6.0).view(2, 3) + step,
        "b": torch.ones(4, dtype=torch.bfloat16),
        "c": torch.tensor(step),
        "d": torch.zeros(0, 5),
    }
    return WeightPayload.of(Version(0, step), tensors, CONFIG if step % 2 else None)


def test_what_was_published_arrives_as_it_was_sent(tmp_path: Path) -> None:
    sender, reader = WeightFile(tmp_path / "weights"), board_at(WeightFile(tmp_path / "weights").address)
    assert reader.newest(None) is None
    for step in (1, 2):
        sender.publish(sent := payload(step))
        found = reader.newest(Version(0, step - 1))

        assert found is not None
        found.verify()
        assert (found.version, found.fingerprint, found.adapter_config) == (
            sent.version, sent.fingerprint, sent.adapter_config,
        )  # fmt: skip
        assert {name: tensor.tolist() for name, tensor in found.tensors.items()} == {
            name: tensor.tolist() for name, tensor in sent.tensors.items()
        }
        assert reader.newest(found.version) is None
    assert stat.S_IMODE((tmp_path / "weights").stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["weights"]


def test_a_version_that_is_read_outlives_the_next_one_and_the_board(tmp_path: Path) -> None:
    board = WeightFile(tmp_path / "weights")
    board.publish(payload(1))
    old = board.newest(None)
    board.publish(payload(2))
    board.close()

    assert old is not None
    old.verify()
    assert board.newest(old.version) is None


def test_a_tensor_outlives_the_payload_that_brought_it() -> None:
    rest, shapes, buffer = payload(1).packed()
    ends = weakref.ref(buffer)
    tensor = WeightPayload.unpacked(rest, shapes, buffer).tensors["a"]
    del rest, shapes, buffer
    gc.collect()

    assert ends() is not None
    assert tensor.tolist() == [[1, 2, 3], [4, 5, 6]]
    del tensor
    assert ends() is None


@pytest.mark.parametrize("at", [-1, -70])
def test_a_changed_byte_is_noticed(tmp_path: Path, at: int) -> None:
    board = WeightFile(tmp_path / "weights")
    board.publish(WeightPayload.of(Version(0, 1), {"a": torch.arange(64.0)}))
    content = bytearray(board.path.read_bytes())
    content[at] ^= 1
    board.path.write_bytes(content)
    found = board.newest(None)

    assert found is not None
    with pytest.raises(WeightSyncError, match=r"weights of version 0\.1 changed on their way to the sampler: a"):
        found.verify()


@pytest.mark.parametrize("content", [b"", b"twinkle1", b"something else altogether, and long enough", b"twinkle1" * 3])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights").write_bytes(content)

    with pytest.raises(WeightSyncError, match="holds no weights that a trainer wrote"):
        WeightFile(tmp_path / "weights").newest(None)


@pytest.mark.parametrize(
    "change", [lambda content: content[:-100], lambda content: content.replace(b"float32", b"float31")]
)
def test_weights_that_do_not_fit_their_header_are_refused(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    board = WeightFile(tmp_path / "weights")
    board.publish(WeightPayload.of(Version(0, 1), {"a": torch.arange(64.0)}))
    board.path.write_bytes(change(board.path.read_bytes()))

    with pytest.raises(WeightSyncError, match="holds no weights that a trainer wrote"):
        board.newest(None)


def test_weights_that_cannot_be_written_say_where(tmp_path: Path) -> None:
    with pytest.raises(WeightSyncError, match=r"version 0\.1 cannot be written to .*gone"):
        WeightFile(tmp_path / "gone" / "weights").publish(payload(1))
