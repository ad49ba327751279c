"""`.venv-peer`: TransferQueue 0.1.11 on the torch and the Ray that we stand on, in an environment of its own."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".venv-peer"
PINS = ROOT / "constraints" / "peer.txt"


def python() -> Path:
    """The peer's interpreter; the environment is made first if it is not there or was made from other pins."""
    interpreter, installed = FOLDER / "bin" / "python", FOLDER / "installed.txt"
    if not installed.exists() or installed.read_text() != PINS.read_text():
        uv = Path(sys.executable).with_name("uv")
        print(f"Installing TransferQueue 0.1.11 into {FOLDER} (once) ...", flush=True)
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, FOLDER], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", interpreter, "--requirement", PINS], check=True)
        installed.write_text(PINS.read_text())
    return interpreter
