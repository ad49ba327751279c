import json
import stat
from pathlib import Path

import pytest

from transfer_queue import ConfigurationError
from transfer_queue.info_file import published, read_info, write_info

INFO = {"endpoint": "ipc:///tmp/nowhere", "pid": 1}


def test_it_is_the_owners_alone_and_gone_with_the_queue(tmp_path: Path) -> None:
    file = tmp_path / "queue.json"
    file.write_text("what a dead queue left")
    file.chmod(0o644)
    with published(file, INFO):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert read_info(file) == INFO

    assert list(tmp_path.iterdir()) == []


def test_a_file_that_another_queue_has_replaced_stays(tmp_path: Path) -> None:
    file = tmp_path / "queue.json"
    with published(file, INFO):
        write_info(file, {**INFO, "pid": 2})

    assert json.loads(file.read_text())["pid"] == 2


@pytest.mark.parametrize(
    ("text", "sentence"), [("{", "is no JSON"), ("[]", "names no queue"), ('{"pid": 3}', "names no queue")]
)
def test_another_file_is_refused_by_name(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "queue.json"
    file.write_text(text)

    with pytest.raises(ConfigurationError, match=f"{file} {sentence}"):
        read_info(file)


def test_no_file_is_no_queue(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist: no queue is running there"):
        read_info(tmp_path / "queue.json")
