"""What `import transfer_queue` costs, and the clash with another distribution of the same package."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import transfer_queue
from transfer_queue.clash import installed_as, refuse_clash

HEAVY = {"torch", "ray", "vllm", "transformers", "hydra", "kubernetes", "numpy", "zmq", "msgspec"}


def test_import_loads_nothing_heavy_and_costs_little() -> None:
    program = (
        "import sys, time, json; t = time.perf_counter(); import transfer_queue; t = time.perf_counter() - t;"
        "print(json.dumps([t, sorted(sys.modules)]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", program])) for _ in range(3)]

    assert set(runs[0][1]) & HEAVY == set()
    assert min(seconds for seconds, _ in runs) < 0.1


def test_every_public_name_is_there() -> None:
    for name in transfer_queue.__all__:
        assert getattr(transfer_queue, name).__name__ == name
    assert set(transfer_queue.__all__) <= set(dir(transfer_queue))
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = transfer_queue.nothing_here


@pytest.mark.parametrize(
    "folder", ["transferqueue-0.1.11.dist-info", "TransferQueue-0.1.11.egg-info", "Transfer_Queue"]
)
def test_the_other_distribution_is_found_by_its_metadata(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    clashes = folder != "Transfer_Queue"

    assert (installed_as("TransferQueue", ["/does/not/exist", str(tmp_path)]) is not None) == clashes
    if clashes:
        with pytest.raises(ImportError, match="pip uninstall TransferQueue"):
            refuse_clash("TransferQueue", "transfer_queue", [str(tmp_path)])


def test_names_are_compared_as_package_indexes_do(tmp_path: Path) -> None:
    (tmp_path / "twinkle_kit-0.5.1.dist-info").mkdir()

    assert installed_as("twinkle-kit", [str(tmp_path)]) == str(tmp_path)
    assert installed_as("twinkle", [str(tmp_path)]) is None


def test_importing_beside_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transferqueue-0.1.11.dist-info").mkdir()
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import transfer_queue"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert run.returncode == 1
    assert "pip uninstall TransferQueue" in run.stderr.splitlines()[-1]
