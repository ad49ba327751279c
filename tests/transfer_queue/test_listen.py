"""A controller that listens on TCP too: clients of other machines, which have the keys but not the files."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.transfer_queue.test_client import Connect, Start, wait_for_restart
from transfer_queue import (
    ConfigurationError,
    ControllerLostError,
    FieldLostError,
    TransferQueueClient,
    TransferQueueController,
)

LARGE = np.arange(64 * 4096, dtype=np.int32).reshape(64, 4096)


def as_from_afar(info: dict[str, Any]) -> dict[str, Any]:
    """What a client of another machine makes of it: it sees neither the socket nor the folder."""
    return {**info, "endpoint": "unix:///nowhere/queue", "folder": "/nowhere"}


def test_a_client_without_the_files_reads_what_lies_in_them_and_brings_its_own(start: Start, connect: Connect) -> None:
    controller = start(global_batch_size=128, listen="tcp://127.0.0.1:0")
    here = connect(controller)
    with TransferQueueClient("afar", as_from_afar(controller.get_info())) as afar:
        here.put({"x": LARGE, "small": np.arange(64), "s": [f"row {i}" for i in range(64)]}, global_step=0)
        afar.put({"x": LARGE + 1, "small": np.arange(64) + 64, "s": ["y"] * 64}, global_step=0)
        meta = here.get_meta(["x", "small", "s"], 128, 0, "a")
        for client in (here, afar):
            values = client.get_data(meta)

            assert (np.asarray(values["x"]) == np.concatenate([LARGE, LARGE + 1])).all()
            assert np.asarray(values["small"]).tolist() == list(range(128))
            assert list(values["s"]) == [f"row {i}" for i in range(64)] + ["y"] * 64


def test_a_port_may_be_fixed_but_the_keys_are_of_one_start(start: Start, connect: Connect, tmp_path: Path) -> None:
    first = start(listen="tcp://127.0.0.1:0", journal_dir=tmp_path / "journal")
    before = first.get_info()
    with TransferQueueClient("afar", as_from_afar(before), call_timeout_s=1.0) as afar:
        afar.put({"x": ["a"]}, global_step=0)
        first.stop()
        second = start(listen=before["tcp_endpoint"], journal_dir=tmp_path / "journal")
        after = second.get_info()
        with pytest.raises(ControllerLostError):
            afar.stats()

    assert after["tcp_endpoint"] == before["tcp_endpoint"]
    assert after["client_secret"] != before["client_secret"]
    assert connect(second).stats().rows_put_total == 1


def test_rows_that_lie_here_and_there_come_in_the_order_asked_for(start: Start, connect: Connect) -> None:
    controller = start(global_batch_size=96, listen="tcp://127.0.0.1:0")
    here = connect(controller)
    with TransferQueueClient("afar", as_from_afar(controller.get_info())) as afar:
        metas = [here.put({"x": LARGE}, global_step=0), here.put({"x": LARGE[:32, :2]}, global_step=0)]
        indexes = metas[0].global_indexes + metas[1].global_indexes
        picked = [indexes[i] for i in (70, 3, 2, 95, 40)]
        meta = here.get_meta(["x"], 96, 0, "a")
        sample = type(meta)(picked, ["x"], [0] * 5, [0] * 5)
        values = afar.get_data(sample)["x"]

        rows = list(values.unbind()) if hasattr(values, "unbind") else values
        expected = [LARGE[6, :2], LARGE[3], LARGE[2], LARGE[31, :2], LARGE[40]]
        assert all(np.array_equal(np.asarray(row), want) for row, want in zip(rows, expected, strict=True))


def test_a_file_that_is_gone_is_a_lost_field_for_a_client_from_afar_too(start: Start, connect: Connect) -> None:
    controller = start(global_batch_size=64, listen="tcp://127.0.0.1:0")
    here = connect(controller)
    with TransferQueueClient("afar", as_from_afar(controller.get_info())) as afar:
        meta = here.put({"x": LARGE}, global_step=0)
        for file in Path(controller.get_info()["folder"]).glob("client-*"):
            file.unlink()
        with pytest.raises(FieldLostError):
            afar.get_data(meta)


def test_the_keys_show_nowhere_but_in_get_info(start: Start, tmp_path: Path) -> None:
    controller = start(listen="tcp://127.0.0.1:0", journal_dir=tmp_path / "journal")
    info = controller.get_info()
    process = Path(f"/proc/{controller.pid}")
    seen = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
    for file in (tmp_path / "journal").rglob("*"):
        seen += file.read_bytes() if file.is_file() else b""

    assert seen
    for name in ("server_key", "client_key", "client_secret"):
        assert info[name].encode() not in seen
    with pytest.raises(ConfigurationError, match="does not know the key"):
        stranger = {**as_from_afar(info), "client_key": info["server_key"]}
        TransferQueueClient("stranger", stranger | other_pair()).stats()


def other_pair() -> dict[str, str]:
    import zmq

    public, secret = zmq.curve_keypair()
    return {"client_key": public.decode(), "client_secret": secret.decode()}


def test_a_durable_controller_comes_back_at_the_same_port_with_the_same_keys(start: Start, tmp_path: Path) -> None:
    controller = start(listen="tcp://127.0.0.1:0", journal_dir=tmp_path / "journal")
    info = controller.get_info()
    with TransferQueueClient("afar", as_from_afar(info)) as afar:
        afar.put({"x": ["1"]}, global_step=0)
        os.kill(controller.pid, signal.SIGKILL)
        time.sleep(0.05)

        assert afar.stats().rows_put_total == 1
        assert {**controller.get_info(), "pid": 0} == {**info, "pid": 0}
        wait_for_restart(controller)


def test_an_address_that_is_taken_or_none_is_said_at_once(start: Start) -> None:
    taken = start(listen="tcp://127.0.0.1:0").get_info()["tcp_endpoint"]
    with pytest.raises(ConfigurationError, match="nothing can listen at"):
        TransferQueueController.start(global_batch_size=1, listen=taken)
    for wrong in ("127.0.0.1:0", "tcp://127.0.0.1", "unix:///tmp/x", 5):
        with pytest.raises(ConfigurationError, match="listen="):
            TransferQueueController.start(global_batch_size=1, listen=wrong)  # type: ignore[arg-type]


def test_without_listen_there_is_no_port(start: Start) -> None:
    controller = start()
    sockets = subprocess.run(
        ["ss", "-tlnpH"] if Path("/usr/bin/ss").exists() else ["cat", f"/proc/{controller.pid}/net/tcp"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert f"pid={controller.pid}," not in sockets.stdout
    assert "tcp_endpoint" not in controller.get_info()
    with pytest.raises(ControllerLostError):
        TransferQueueClient("afar", as_from_afar(controller.get_info())).stats()
