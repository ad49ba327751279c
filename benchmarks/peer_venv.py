"""Environments of the peers that we measure beside us, each with its own pins, on the torch that we stand on."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class PeerVenv:
    """The environment `folder` with `peer` and what else `constraints/<pins>` names."""

    peer: str
    folder: Path
    pins: Path

    def python(self) -> Path:
        """The peer's interpreter; the environment is made first if it is not there or was made from other pins."""
        interpreter, installed = self.folder / "bin" / "python", self.folder / "installed.txt"
        if not installed.exists() or installed.read_text() != self.pins.read_text():
            uv = Path(sys.executable).with_name("uv")
            print(f"Installing {self.peer} into {self.folder} (once) ...", flush=True)
            subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, self.folder], check=True)
            subprocess.run(
                [uv, "pip", "install", "--quiet", "--python", interpreter, "--requirement", self.pins], check=True
            )
            installed.write_text(self.pins.read_text())
        return interpreter


TRANSFER_QUEUE = PeerVenv("TransferQueue 0.1.11", ROOT / ".venv-peer", ROOT / "constraints" / "peer.txt")
TWINKLE_KIT = PeerVenv("twinkle-kit 0.1.3", ROOT / ".venv-kit", ROOT / "constraints" / "twinkle_kit.txt")
