"""What the trainer publishes: a version of the weights with a digest of every tensor, made where the weights are."""

import ctypes
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import xxhash
from torch import Tensor

from twinkle.errors import WeightSyncError

ALIGNMENT = 64
# One core reads nearly as fast as two do.
MOST_THREADS = 4
BYTES_OF_A_THREAD = 4 * 2**20


class Version(NamedTuple):
    """Which weights: ``lineage`` is one uninterrupted history of them, ``step`` counts its optimizer steps."""

    lineage: int
    step: int

    def __str__(self) -> str:
        return f"{self.lineage}.{self.step}"


def digests_of(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Of each tensor, in the order of the names, a digest (XXH3, 128 bits) of name, type, shape and bytes.

    It finds accidents, not attackers, at the speed of the memory: 50 MB take a few ms, BLAKE2b takes a hundred times
    that. Several threads share the bytes when there are many.
    """
    names = sorted(tensors)
    parts = _even_parts(names, [tensors[name].nbytes for name in names])
    if len(parts) == 1:
        return {name: _digest(name, tensors[name], xxhash.xxh3_128_digest) for name in names}
    with ThreadPoolExecutor(len(parts), "digests") as pool:
        found = pool.map(partial(_digests_beside_others, tensors), parts)
        return {name: digest for part in found for name, digest in part.items()}


def fingerprint_of(digests: Mapping[str, str]) -> str:
    """One digest of all tensors': 32 hexadecimal digits."""
    return xxhash.xxh3_128("".join(digests[name] for name in sorted(digests)).encode()).hexdigest()


def _even_parts(names: Sequence[str], sizes: Sequence[int]) -> list[list[str]]:
    """The names, in their order, in one part for each thread that is worth its start, with about as many bytes each."""
    total = sum(sizes)
    threads = min(MOST_THREADS, (os.cpu_count() or 1) // 2, total // BYTES_OF_A_THREAD)
    if threads < 2:
        return [list(names)]
    parts: list[list[str]] = [[] for _ in range(threads)]
    before = 0
    for name, size in zip(names, sizes, strict=True):
        parts[(before + size // 2) * threads // (total + 1)].append(name)
        before += size
    return [part for part in parts if part]


def _digests_beside_others(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, str]:
    return {name: _digest(name, tensors[name], _content_beside_others) for name in names}


def _content_beside_others(content: memoryview) -> bytes:
    """The same digest, half as long again in the making, without holding Python's lock."""
    digest = xxhash.xxh3_128()
    digest.update(content)
    return digest.digest()


def _digest(name: str, tensor: Tensor, digest_of: Callable[[memoryview], bytes]) -> str:
    content = digest_of(_bytes(tensor).data)
    return xxhash.xxh3_128_hexdigest(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode() + content)


def _bytes(tensor: Tensor) -> "np.ndarray[Any, Any]":
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


@dataclass(frozen=True)
class WeightPayload:
    """One version of the weights on its way to the samplers. Pickled, all its tensors are one buffer, which Ray keeps
    in its object store and maps into the processes of a machine; what arrives may be read and not written.

    Attributes:
        version: the weights' version.
        tensors: name -> tensor; the adapter's alone when ``adapter_config`` is there, else the whole model's.
        adapter_config: the PEFT configuration of an adapter, or None for full weights.
        digests: of each tensor, made by the sender.
        hash_seconds: what making them took.
    """

    version: Version
    tensors: Mapping[str, Tensor]
    adapter_config: Mapping[str, Any] | None
    digests: Mapping[str, str]
    hash_seconds: float = 0.0

    @classmethod
    def of(
        cls, version: Version, tensors: Mapping[str, Tensor], adapter_config: Mapping[str, Any] | None = None
    ) -> Self:
        """The payload of an adapter, or of a whole model's state dict when there is no ``adapter_config``."""
        began = time.perf_counter()
        digests = digests_of(tensors)
        made = cls(version, tensors, adapter_config, digests, time.perf_counter() - began)
        made.__dict__["_at_home"] = True
        return made

    @cached_property
    def fingerprint(self) -> str:
        """What samples of these weights bear."""
        return fingerprint_of(self.digests)

    def verify(self) -> None:
        """Raise WeightSyncError, which names the first tensor that is not what was sent, unless all are.

        The very object that ``of`` made has not been on any way, and is not read again.
        """
        if "_at_home" in self.__dict__:
            return
        arrived, sent = digests_of(self.tensors), self.digests
        if arrived != sent:
            odd = min(name for name in {*arrived, *sent} if arrived.get(name) != sent.get(name))
            raise WeightSyncError(
                f"The weights of version {self.version} changed on their way to the sampler: {odd} was sent as "
                f"{sent.get(odd)} and arrived as {arrived.get(odd)}; nothing was loaded."
            )

    def packed(self) -> "Packed":
        """What it is made of, as it travels: plain data, and the bytes of all tensors as one buffer."""
        shapes, buffer = self.__dict__.get("_packed") or _packed(self.tensors)
        return (self.version, self.adapter_config, dict(self.digests), self.hash_seconds), shapes, buffer

    @classmethod
    def unpacked(cls, rest: "Rest", shapes: "Shapes", buffer: "np.ndarray[Any, Any]") -> Self:
        """A payload whose tensors are views of the buffer; sent on, the buffer goes as it is."""
        # torch warns of read-only memory, and would refuse it one day; through ctypes it neither asks nor copies.
        memory = (ctypes.c_uint8 * len(buffer)).from_address(buffer.ctypes.data)
        memory.owner = buffer  # type: ignore[attr-defined] # kept by each tensor, which may outlive the payload
        whole, tensors, at = torch.frombuffer(memory, dtype=torch.uint8), {}, 0
        for name, dtype, shape in shapes:
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            tensors[name] = whole[at : at + size].view(dtype).view(shape)
            at += _padded(size)
        version, adapter_config, digests, hash_seconds = rest
        payload = cls(version, tensors, adapter_config, digests, hash_seconds)
        payload.__dict__["_packed"] = (shapes, buffer)
        return payload

    def __reduce__(self) -> Any:
        return type(self).unpacked, self.packed()


Rest = tuple[Version, Mapping[str, Any] | None, dict[str, str], float]
Shapes = list[tuple[str, torch.dtype, tuple[int, ...]]]
Packed = tuple[Rest, Shapes, "np.ndarray[Any, Any]"]


def _packed(tensors: Mapping[str, Tensor]) -> tuple[Shapes, "np.ndarray[Any, Any]"]:
    """Types and shapes, and the bytes of all tensors one behind the other."""
    shapes = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    buffer = np.zeros(_padded(sum(_padded(tensor.nbytes) for tensor in tensors.values()) or 1), dtype=np.uint8)
    at = 0
    for tensor in tensors.values():
        buffer[at : at + tensor.nbytes] = _bytes(tensor)
        at += _padded(tensor.nbytes)
    return shapes, buffer


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
