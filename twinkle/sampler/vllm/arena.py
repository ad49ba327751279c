"""Tensors in memory that two processes share, without a file system and without copies through a socket.

The memory is anonymous (memfd): it has no name that could outlive its owner, and other processes of the same user
reach it through the owner's /proc entry while the owner lives. Linux only, as vLLM is.
"""

import mmap
import os
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor

ALIGNMENT = 64
# Name, dtype ("float32"), shape and offset in bytes.
Layout: TypeAlias = list[tuple[str, str, tuple[int, ...], int]]


class Arena:
    """Memory that is written over and over: pages once touched stay warm. Not safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self._fd = os.memfd_create(f"twinkle-{name}", os.MFD_CLOEXEC)
        self._memory: mmap.mmap | None = None

    @property
    def path(self) -> str:
        """Where other processes of this user can map the memory while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def write(self, tensors: Mapping[str, Tensor]) -> Layout:
        """Copy the tensors in, over what was there; where each lies."""
        layout: Layout = []
        end = 0
        for name, tensor in tensors.items():
            layout.append((name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), end))
            end += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
        memory = self._sized(max(end, ALIGNMENT))
        for place, tensor in zip(layout, tensors.values(), strict=True):
            _view(memory, place).copy_(tensor.detach())
        return layout

    def close(self) -> None:
        """Give the memory back; what others have mapped stays theirs."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._memory = -1, None

    def _sized(self, size: int) -> mmap.mmap:
        if self._memory is None or len(self._memory) < size:
            os.ftruncate(self._fd, size)
            self._memory = mmap.mmap(self._fd, size)
        return self._memory


def mapped(path: str, layout: Layout) -> dict[str, Tensor]:
    """The tensors in another process's arena, for reading while that process leaves them alone."""
    fd = os.open(path, os.O_RDWR)
    try:
        memory = mmap.mmap(fd, 0)
    finally:
        os.close(fd)
    return {place[0]: _view(memory, place) for place in layout}


def _view(memory: mmap.mmap, place: tuple[str, str, tuple[int, ...], int]) -> Tensor:
    _, dtype_name, shape, offset = place
    dtype: torch.dtype = getattr(torch, dtype_name)
    count = torch.Size(shape).numel()
    if count == 0:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(memory, dtype=dtype, count=count, offset=offset).view(shape)
