"""The short form of `make soak`; run by `make soak-short`."""

import shutil
import time

import pytest

from tests.soak.__main__ import judge
from tests.soak.storm import Storm


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_a_minute_of_sigkill_loses_and_doubles_nothing() -> None:
    seed = time.time_ns() & 0xFFFF
    storm = Storm(60, seed)
    report = storm.run()
    assert judge(report) == [], f"seed {seed}, notes in {storm.folder}"
    shutil.rmtree(storm.folder)
