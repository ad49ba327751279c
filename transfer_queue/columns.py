"""Values as columns: tensors, arrays, strings and JSON-like objects to raw bytes, and back."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from transfer_queue import wire
from transfer_queue.errors import FieldError
from transfer_queue.wire import Frame

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def encode_fields(data: Mapping[str, Any]) -> tuple[int, list[wire.Column], list[Frame]]:
    """Rows, and per field of a dict or TensorDict a column and a frame; `FieldError` names what cannot travel.

    A field is a dense tensor or array (first dimension = rows), a nested tensor, a list of tensors or arrays (one per
    row, of any shapes), or a list of strings, bytes or JSON-like values.
    """
    columns: list[wire.Column] = []
    frames: list[Frame] = []
    rows = -1
    names: list[object] = list(data.keys())  # iterating a TensorDict itself gives rows, not names
    for name in names:
        if not isinstance(name, str) or not name:
            raise FieldError(f"a field's name must be a string, not {name!r}")
        count, column, frame = _encode(name, data[name])
        if rows not in (-1, count):
            raise FieldError(f"field {name!r} has {count} rows, field {columns[0].name!r} has {rows}")
        rows = count
        columns.append(column)
        frames.append(frame)
    if rows < 1:
        raise FieldError("put needs at least one field with at least one row")
    return rows, columns, frames


def _encode(name: str, value: Any) -> tuple[int, wire.Column, Frame]:
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)  # None too while another thread is importing torch
    if tensor is not None and isinstance(value, tensor):
        if value.is_nested:
            return _encode_torch_rows(name, list(value.unbind()))
        _check_dense(name, value.shape)
        return len(value), wire.Column(name, str(value.dtype)[6:], [tuple(value.shape[1:])]), _torch_bytes(value)
    if isinstance(value, np.ndarray):
        _check_dense(name, value.shape)
        return len(value), wire.Column(name, _dtype(name, value), [value.shape[1:]]), _numpy_bytes(value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        tolist = getattr(value, "tolist", None)
        if tolist is None:
            raise FieldError(
                f"field {name!r} is a {type(value).__name__}: give a tensor, an array, or a list with one value per row"
            )
        value = tolist()
    first = value[0] if len(value) else None
    if tensor is not None and isinstance(first, tensor):
        return _encode_torch_rows(name, value)
    if isinstance(first, np.ndarray | np.generic):
        return _encode_numpy_rows(name, value)
    return _encode_objects(name, value)


def _check_dense(name: str, shape: Sequence[int]) -> None:
    if not shape:
        raise FieldError(f"field {name!r} is a single number without rows: its first dimension counts rows")


def _check_alike(name: str, values: Sequence[Any], kinds: tuple[type, ...]) -> None:
    dtype = values[0].dtype
    for row, value in enumerate(values):
        found = value.dtype if isinstance(value, kinds) else type(value).__name__  # type: ignore[attr-defined]
        if found != dtype:
            raise FieldError(f"field {name!r}: row {row} is {found}, row 0 is {dtype}: a field has one dtype")


def _encode_torch_rows(name: str, values: Sequence[Any]) -> tuple[int, wire.Column, Frame]:
    torch = sys.modules["torch"]
    _check_alike(name, values, (torch.Tensor,))
    column = wire.Column(name, str(values[0].dtype)[6:], _shapes(values))
    flat = list(values) if all(value.dim() == 1 for value in values) else [value.reshape(-1) for value in values]
    return len(values), column, _torch_bytes(torch.cat(flat))


def _encode_numpy_rows(name: str, values: Sequence[Any]) -> tuple[int, wire.Column, Frame]:
    _check_alike(name, values, (np.ndarray, np.generic))
    together = np.concatenate([np.ravel(value) for value in values])
    return len(values), wire.Column(name, _dtype(name, together), _shapes(values)), _numpy_bytes(together)


def _encode_objects(name: str, values: Sequence[Any]) -> tuple[int, wire.Column, Frame]:
    packed: list[bytes] = []
    try:
        packed.extend(map(_pack, values))
    except (TypeError, OverflowError, RecursionError) as error:
        row = len(packed)
        raise FieldError(
            f"field {name!r}: row {row} is a {type(values[row]).__name__} that cannot travel ({error}); "
            "use tensors, arrays, strings, bytes or JSON-like values"
        ) from error
    return len(packed), wire.Column(name, wire.OBJECT, [], list(map(len, packed))), b"".join(packed)


def _shapes(values: Sequence[Any]) -> list[tuple[int, ...]]:
    """One shape where all agree, otherwise one per row."""
    shapes = [value.shape for value in values]
    return [tuple(shape) for shape in (shapes[:1] if shapes.count(shapes[0]) == len(shapes) else shapes)]


def _torch_bytes(value: Any) -> Frame:
    torch = sys.modules["torch"]
    name = str(value.dtype)[6:]
    if name not in wire.ITEM_SIZES:
        raise FieldError(f"dtype {name} cannot travel: convert the tensor first")
    flat = value.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def _numpy_bytes(value: Any) -> Frame:
    native = value.astype(value.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native).reshape(-1).view(np.uint8).data if value.size else b""


def _dtype(name: str, value: Any) -> str:
    if value.dtype.name not in wire.ITEM_SIZES:
        raise FieldError(f"field {name!r} is an array of {value.dtype}: give numbers, or a plain list of objects")
    return str(value.dtype.name)


def decode_fields(rows: int, columns: Sequence[wire.Column], frames: Sequence[Any], *, plain: bool = False) -> Any:
    """The values as a TensorDict where torch and tensordict are installed, otherwise as a dict of NumPy arrays.

    With `plain` as a dict of tensors and lists, which costs much less where there are many strings.

    What a field comes out as depends on these rows alone: one dense tensor where their shapes agree; where only the
    first dimension differs, a jagged nested tensor (NumPy: a list); a list otherwise and for strings and objects.
    All of it is private to the caller and writable.
    """
    if _has_torch():
        values = {c.name: _torch_column(rows, c, frame) for c, frame in zip(columns, frames, strict=True)}
        if plain:
            return values
        from tensordict import TensorDict

        return TensorDict({k: _stack(v) if isinstance(v, list) else v for k, v in values.items()}, batch_size=[rows])
    return {c.name: _numpy_column(rows, c, frame) for c, frame in zip(columns, frames, strict=True)}


def rows_of(rows: int, column: wire.Column, frame: Any) -> Sequence[Any]:
    """The values of one field row by row, without torch: an array where their shapes agree, otherwise a list."""
    values: Sequence[Any] = _numpy_column(rows, column, frame)
    return values


def _stack(values: list[Any]) -> Any:
    """A list as a field of a TensorDict; `from_list` is faster but takes a list in a list for a further dimension."""
    from tensordict import NonTensorData, NonTensorStack

    if any(isinstance(value, list) for value in values):
        return NonTensorStack(*[NonTensorData(data=value) for value in values])
    return NonTensorStack.from_list(values)


def _has_torch() -> bool:
    return all(name in sys.modules or importlib.util.find_spec(name) is not None for name in ("torch", "tensordict"))


def _objects(column: wire.Column, frame: Any) -> list[Any]:
    header = b"\xdd" + len(column.sizes).to_bytes(4, "big")  # documents one after the other, with this before them:
    values: list[Any] = _unpack(b"".join((header, frame)))  # a msgpack array, decoded in one go
    return values


def _own(frame: Any) -> Any:
    """The bytes as an array that only the caller has; a mapped, read-only one is taken as it is."""
    if isinstance(frame, np.ndarray):
        return frame if frame.flags.writeable else _as_if_writable(frame)
    return np.frombuffer(bytearray(frame), dtype=np.uint8)


def _as_if_writable(mapped: Any) -> Any:
    """The same memory, which torch takes without a warning; it knows no tensors that must not be written to."""
    memory: Any = (ctypes.c_ubyte * len(mapped)).from_address(mapped.ctypes.data)
    memory.mapped = mapped  # keeps the mapping for as long as the tensor
    return np.frombuffer(memory, dtype=np.uint8)


def _torch_column(rows: int, column: wire.Column, frame: Any) -> Any:
    import torch

    if column.dtype == wire.OBJECT:
        return _objects(column, frame)
    dtype = getattr(torch, column.dtype)
    flat = torch.from_numpy(_own(frame)).view(dtype) if len(frame) else torch.empty(0, dtype=dtype)
    if len(column.shapes) == 1:
        return flat.reshape(rows, *column.shapes[0])
    counts = [_size(shape) for shape in column.shapes]
    tails = {shape[1:] for shape in column.shapes}
    if len(tails) == 1 and all(column.shapes):
        lengths = [shape[0] for shape in column.shapes]
        offsets = torch.from_numpy(np.concatenate(([0], np.cumsum(lengths))).astype(np.int64))
        values = flat.reshape(sum(lengths), *tails.pop())
        return torch.nested.nested_tensor_from_jagged(values, offsets, min_seqlen=min(lengths), max_seqlen=max(lengths))
    return [part.reshape(shape) for part, shape in zip(torch.split(flat, counts), column.shapes, strict=True)]


def _numpy_column(rows: int, column: wire.Column, frame: Any) -> Any:
    if column.dtype == wire.OBJECT:
        return _objects(column, frame)
    try:
        dtype = np.dtype(column.dtype)
    except TypeError:
        raise FieldError(f"field {column.name!r} is {column.dtype}, which NumPy does not know: install torch") from None
    own = frame if isinstance(frame, np.ndarray) else np.frombuffer(bytearray(frame), dtype=np.uint8)
    flat = own.view(dtype)
    if len(column.shapes) == 1:
        return flat.reshape(rows, *column.shapes[0])
    ends = np.cumsum([_size(shape) for shape in column.shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), column.shapes, strict=True)]


def _size(shape: Sequence[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
