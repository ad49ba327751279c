import subprocess
import sys
from pathlib import Path

import pytest

import twinkle

HEAVY = ["torch", "ray", "vllm", "transformers", "hydra", "kubernetes", "tensordict", "peft"]
SECONDS = "import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start)"


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    "module",
    ["twinkle", "transfer_queue", "twinkle.data_format", "twinkle.template", "twinkle.infra", "twinkle.sampler"],
)
def test_imports_are_light(module: str) -> None:
    loaded = run(f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])")

    assert loaded.strip() == "[]"


@pytest.mark.parametrize(("module", "limit_s"), [("twinkle", 0.150), ("transfer_queue", 0.100)])
def test_imports_are_fast(module: str, limit_s: float) -> None:
    best_s = min(float(run(SECONDS.format(name=module))) for _ in range(7))

    assert best_s < limit_s


def test_names_are_loaded_when_used() -> None:
    assert twinkle.DeviceMesh.from_sizes(dp_size=2).world_size == 2
    assert twinkle.DeviceGroup("g", 1, "cpu").ranks == 1
    assert {"DeviceGroup", "DeviceMesh", "initialize"} <= set(dir(twinkle))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'DeviceMash'"):
        twinkle.DeviceMash  # noqa: B018


@pytest.mark.parametrize("directory", ["twinkle_kit-0.5.1.dist-info", "Twinkle.Kit-0.5.1.dist-info"])
def test_twinkle_kit_in_the_same_environment_is_said_in_one_sentence(directory: str, tmp_path: Path) -> None:
    (tmp_path / directory).mkdir()
    code = f"import sys; sys.path.append({str(tmp_path)!r}); import twinkle"
    result = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)

    assert result.returncode != 0
    sentence = result.stderr.strip().splitlines()[-1]
    assert "the distribution 'twinkle-kit' in" in sentence
    assert sentence.endswith("pip uninstall twinkle-kit")


def test_other_distributions_do_not_clash(tmp_path: Path) -> None:
    for name in ("twinkle_rl-0.1.0.dist-info", "twinkle_kit_extras-1.dist-info", "twinkle_kit"):
        (tmp_path / name).mkdir()

    assert run(f"import sys; sys.path.append({str(tmp_path)!r}); import twinkle; print(twinkle.__version__)")
