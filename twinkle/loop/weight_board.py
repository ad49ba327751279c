"""Where a run hangs out its newest weights, for samplers that it did not start.

The trainer publishes a version before it puts the prompts that need it, so who looks at the board after taking prompts
finds weights that are new enough, and waits for nothing.
"""

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import torch

from twinkle.errors import WeightSyncError
from twinkle.loop.payload import ALIGNMENT, Version, WeightPayload

MAGIC = b"twinkle1"
HEAD = struct.Struct("<8sQ")
MOST_BYTES = 1 << 28
"""Of a header: names, shapes and digests of the tensors."""


class WeightBoard(Protocol):
    """Holds one version, the newest."""

    @property
    def address(self) -> Mapping[str, str]:
        """Where others find it; plain data for `board_at`."""

    def publish(self, payload: WeightPayload) -> None:
        """Replace what hangs there; readers see the old version or the new one."""

    def newest(self, known: Version | None) -> WeightPayload | None:
        """What hangs there, unchecked; None when that is the version ``known``, or nothing yet."""


def board_at(address: Mapping[str, str]) -> WeightBoard:
    """The board at an address; ConfigError when it is on Ray and this process is not."""
    if "file" in address:
        return WeightFile(Path(address["file"]))
    from twinkle.loop.weight_actor import WeightsOnRay

    return WeightsOnRay(address["namespace"])


class WeightFile:
    """A board for one machine: a file of its owner's, replaced by one rename and mapped by who reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def address(self) -> Mapping[str, str]:
        """Its path."""
        return {"file": str(self.path)}

    def publish(self, payload: WeightPayload) -> None:
        """Write a draft beside the file, and rename it."""
        (version, adapter_config, digests, _), shapes, buffer = payload.packed()
        kinds = [(name, str(dtype).removeprefix("torch."), shape) for name, dtype, shape in shapes]
        header = json.dumps([version, adapter_config, digests, kinds]).encode()
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with open(handle, "wb") as file:
                file.write(HEAD.pack(MAGIC, len(header)) + header)
                file.write(b"\0" * (-file.tell() % ALIGNMENT))
                file.write(buffer.data)
            draft.replace(self.path)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise WeightSyncError(
                f"The weights of version {payload.version} cannot be written to {self.path} ({error.strerror}), where "
                "samplers would find them. Is the disk full?"
            ) from error

    def newest(self, known: Version | None) -> WeightPayload | None:
        """The file's version; its tensors are the file's own memory, also when it has been replaced."""
        try:
            with self.path.open("rb") as file:
                version, adapter_config, digests, kinds = self._header(file)
                if (found := Version(*version)) == known:
                    return None
                at = -(-file.tell() // ALIGNMENT) * ALIGNMENT
                buffer = np.asarray(np.memmap(file, dtype=np.uint8, mode="r", offset=at))
            shapes = [(name, getattr(torch, dtype), tuple(shape)) for name, dtype, shape in kinds]
            return WeightPayload.unpacked((found, adapter_config, digests, 0.0), shapes, buffer)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError, RuntimeError, struct.error) as error:
            raise WeightSyncError(f"{self.path} holds no weights that a trainer wrote ({error}).") from error

    def _header(self, file: BinaryIO) -> Any:
        magic, size = HEAD.unpack(file.read(HEAD.size))
        if magic != MAGIC or size > MOST_BYTES:
            raise ValueError("it begins otherwise")
        return json.loads(file.read(size))

    def close(self) -> None:
        """Take the file away; who has mapped it keeps it."""
        self.path.unlink(missing_ok=True)
