"""How a sampler reaches another process: as import path and plain arguments, never as pickled code."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import msgspec

from transfer_queue.errors import SamplerError, TransferQueueError
from transfer_queue.samplers.base import BaseSampler

NESTED = "transfer_queue sampler"
"""Marks an argument that is a sampler itself."""

SamplerLike = BaseSampler | type[BaseSampler] | Callable[[], BaseSampler]


class SamplerSpec(msgspec.Struct, array_like=True, frozen=True):
    """A sampler class as "module:Class" and the arguments that its constructor is called with."""

    path: str
    args: list[Any]
    kwargs: dict[str, Any]


def instance_of(sampler: object) -> BaseSampler:
    """The sampler itself, or what the class or callable makes; `SamplerError` for anything else."""
    made = sampler
    if not isinstance(sampler, BaseSampler):
        if not callable(sampler):
            raise SamplerError(f"sampler={sampler!r} is neither a sampler nor a class or function that makes one")
        try:
            made = sampler()
        except TransferQueueError:
            raise
        except (Exception, SystemExit) as error:
            raise SamplerError(f"sampler={sampler!r} could not be called: {type(error).__name__}: {error}") from error
    if not isinstance(made, BaseSampler):
        raise SamplerError(f"sampler={sampler!r} gave {made!r}, which is no BaseSampler")
    return made


def spec_of(sampler: object) -> SamplerSpec:
    """How this sampler travels; `SamplerError` for a lambda, a closure, or a class that no other process can import."""
    if not isinstance(sampler, BaseSampler):
        _check_importable(sampler)
    made = instance_of(sampler)
    _check_importable(type(made))
    args, kwargs = made._arguments
    known: list[Any] = [[_packed(each) for each in args], {name: _packed(each) for name, each in kwargs.items()}]
    try:
        plain = msgspec.msgpack.decode(msgspec.msgpack.encode(known))
    except TypeError as error:
        raise SamplerError(f"{made!r} cannot travel to the controller: {error}; use plain arguments") from error
    return SamplerSpec(f"{type(made).__module__}:{type(made).__qualname__}", plain[0], plain[1])


def build(spec: SamplerSpec) -> BaseSampler:
    """The sampler of that import path with those arguments; only subclasses of `BaseSampler` are ever called."""
    module, _, name = spec.path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # an import runs the module, which may raise anything
        raise SamplerError(
            f"the controller's process cannot import the sampler {spec.path!r}: {type(error).__name__}: {error}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, BaseSampler)):
        raise SamplerError(f"{spec.path!r} is no subclass of BaseSampler")
    args = [_unpacked(each) for each in spec.args]
    kwargs = {name: _unpacked(each) for name, each in spec.kwargs.items()}
    return instance_of(lambda: found(*args, **kwargs))


def _packed(argument: Any) -> Any:
    """A sampler, or what makes one, among the arguments of another: as its own import path and arguments."""
    if not isinstance(argument, BaseSampler) and not callable(argument):
        return argument
    return {NESTED: msgspec.to_builtins(spec_of(argument))}


def _unpacked(argument: Any) -> Any:
    if not (isinstance(argument, dict) and set(argument) == {NESTED}):
        return argument
    try:
        spec = msgspec.convert(argument[NESTED], SamplerSpec)
    except msgspec.ValidationError as error:
        raise SamplerError(f"an argument that should be a sampler is none: {error}") from error
    return build(spec)


def _check_importable(thing: object) -> None:
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if module is None or name is None:
        return
    if module == "__main__" or "<" in name:
        kind = "a lambda" if "<lambda>" in name else f"{name!r} of module {module!r}"
        raise SamplerError(
            f"{kind} cannot travel to the controller's process, which knows samplers by import path: move it to the "
            "top level of a module that can be imported, or use TransferQueueController.remote with Ray"
        )
