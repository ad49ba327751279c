"""Copying tensors into a model that owns its weights: strictly, and without ever sharing storage."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from twinkle.errors import TwinkleError

SHOWN = 5


def check_keys(what: str, missing: Iterable[str], unexpected: Iterable[str], error: type[TwinkleError]) -> None:
    """Raise ``error`` naming the keys that are missing or unexpected, if there are any."""
    problems = []
    for name, keys in (("missing", sorted(missing)), ("unexpected", sorted(unexpected))):
        if keys:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            problems.append(f"{name}: {', '.join(keys[:SHOWN])}{more}")
    if problems:
        raise error(f"{what} has the wrong keys; {'; '.join(problems)}")


def check_shapes(what: str, own: Mapping[str, Tensor], given: Mapping[str, Tensor], error: type[TwinkleError]) -> None:
    """Raise ``error`` naming the first tensor whose shape is not the model's; every given key must be in ``own``."""
    for key, tensor in given.items():
        if tensor.shape != own[key].shape:
            raise error(f"{what}: {key} has shape {tuple(tensor.shape)}, the model needs {tuple(own[key].shape)}")


@torch.no_grad()
def copy_into(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Copy values, converting dtype and device, into tensors that already exist."""
    for key, tensor in given.items():
        own[key].copy_(tensor)


class FullWeights:
    """All weights of a model under the names of its state dict; tied weights have several names and one storage."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._own = dict(module.state_dict())
        self._names: dict[int, list[str]] = {}
        for name, tensor in self._own.items():
            self._names.setdefault(tensor.data_ptr(), []).append(name)

    def load(self, given: Mapping[str, Tensor], error: type[TwinkleError]) -> None:
        """Replace all weights; of tied ones a single name is enough. Nothing changes when keys or shapes are wrong."""
        missing = [names[0] for names in self._names.values() if not given.keys() & set(names)]
        what = "the weights for this model"
        check_keys(what, missing, given.keys() - self._own.keys(), error)
        check_shapes(what, self._own, given, error)
        for names in self._names.values():
            first, *others = [name for name in names if name in given]
            for name in others:
                if not torch.equal(given[first], given[name]):
                    raise error(f"{what}: {first} and {name} are one tied tensor of the model but differ here")
        copy_into(self._own, given)
