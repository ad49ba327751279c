"""`.venv-kit`: twinkle-kit 0.1.3, the last release with a TorchSampler, on the torch that we stand on."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-kit"
PINS = ROOT / "constraints" / "twinkle_kit.txt"


def python() -> Path:
    """The interpreter; the environment is made first if it is not there or was made from other pins."""
    interpreter, installed = FOLDER / "bin" / "python", FOLDER / "installed.txt"
    if not installed.exists() or installed.read_text() != PINS.read_text():
        uv = Path(sys.executable).with_name("uv")
        print(f"Installing twinkle-kit 0.1.3 into {FOLDER} (once) ...", flush=True)
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, FOLDER], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", interpreter, "--requirement", PINS], check=True)
        installed.write_text(PINS.read_text())
    return interpreter
