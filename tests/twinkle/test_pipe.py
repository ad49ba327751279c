"""Programs whose output goes into a pipe that nobody reads any more, as with ``twinkle --help | head``."""

import os
import subprocess
import sys

import pytest

RUN = "from {} import main; main()"


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("twinkle.cli", ["--help"]),
        ("twinkle.entrypoints.queue", ["--help"]),
        ("twinkle.entrypoints.queue", ["--cfg", "job"]),
        ("twinkle.entrypoints.sampler", ["--help"]),
        ("twinkle.entrypoints.train", ["--help"]),
    ],
)
def test_a_reader_that_has_seen_enough_is_no_error(module: str, arguments: list[str], unbuffered: str) -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-c", RUN.format(module), *arguments]
    with os.fdopen(write, "w") as pipe:
        ended = subprocess.run(
            command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )  # fmt: skip

    assert (ended.stderr, ended.returncode in (0, 141)) == ("", True)
