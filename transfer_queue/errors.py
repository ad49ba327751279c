"""Every error that the queue raises on purpose; each message says what, where, the offending value and the likely fix.

    TransferQueueError
    ├── ConfigurationError      arguments of a controller or client that cannot work (ValueError)
    ├── ClashError              PyPI's TransferQueue lies in the same environment (ImportError)
    ├── FieldError              a field or its values cannot be stored or read (ValueError)
    ├── GroupError              rows that do not make whole groups (ValueError)
    ├── DPGroupError            ranks of one DP group that disagree (ValueError)
    ├── SamplerError            a sampler raised, answered nonsense, hung or cannot travel (ValueError)
    ├── SamplerLostError        a registered sampler that a restarted controller cannot make again (SamplerError)
    ├── LeaseError              a lease that is over, or that stands in the way (ValueError)
    ├── StepClearedError        the rows were cleared (ValueError)
    ├── ExhaustedError          a wait that can never be served (ValueError)
    ├── ExtentError             a range of storage that is freed twice or is not there (ValueError)
    ├── FieldLostError          a field whose storage died, or a lease on one (ValueError)
    ├── JournalError            a journal that cannot be opened, read or written (ValueError)
    ├── ProtocolError           a message that is none of ours (ValueError)
    ├── RequestError            a request failed in a way nobody foresaw; names the exception (ValueError)
    ├── NotReadyError           get_meta reached its deadline (TimeoutError)
    ├── BackPressureError       put reached its deadline (TimeoutError)
    ├── StorageFullError        no room for values until rows are cleared (TimeoutError)
    ├── StorageTimeoutError     a storage actor did not answer in time (TimeoutError)
    ├── ControllerTimeoutError  the controller did not answer in time (TimeoutError)
    └── ControllerLostError     the controller is gone (TimeoutError)

Errors cross the wire as name, message and plain details, and come out as the same class.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class TransferQueueError(Exception):
    """Base of every error that the queue raises on purpose; `details` holds plain data for programs."""

    def __init__(self, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.details: dict[str, Any] = details or {}


class ConfigurationError(TransferQueueError, ValueError):
    """Arguments of a controller or a client that cannot work; names argument, value and fix."""


class ClashError(TransferQueueError, ImportError):
    """Another distribution that also installs a package `transfer_queue` lies in the same environment."""


class FieldError(TransferQueueError, ValueError):
    """A field that is written twice or unknown, or values that cannot be stored."""


class GroupError(TransferQueueError, ValueError):
    """Rows that do not make whole groups of `num_n_samples`."""


class DPGroupError(TransferQueueError, ValueError):
    """Data-parallel parameters that are incomplete, out of range or differ between the ranks of one group."""


class SamplerError(TransferQueueError, ValueError):
    """A sampler that raised, answered what it must not, ran past its deadline or cannot travel."""


class SamplerLostError(SamplerError):
    """A registered sampler that a restarted controller could not make again: its task refuses."""


class LeaseError(TransferQueueError, ValueError):
    """A lease that is over (named, with how it ended), or a live one that stands in the way."""


class StepClearedError(TransferQueueError, ValueError):
    """The rows asked for belong to a step that was cleared."""


class ExhaustedError(TransferQueueError, ValueError):
    """A wait that can never be served: too many of the rows were consumed or dropped already."""


class ExtentError(TransferQueueError, ValueError):
    """A range of storage that is freed twice or that is not there."""


class FieldLostError(TransferQueueError, ValueError):
    """A field whose storage died, or a lease on rows that lost one."""


class JournalError(TransferQueueError, ValueError):
    """A journal that cannot be opened, read or written; names the file and what the system said."""


class ProtocolError(TransferQueueError, ValueError):
    """A message that is not one of the queue's, or not well formed."""


class RequestError(TransferQueueError, ValueError):
    """A request failed in a way nobody foresaw; the message names the exception on the controller's side."""


class NotReadyError(TransferQueueError, TimeoutError):
    """`get_meta` reached its deadline; says how many rows are ready and why each missing one is missing."""


class BackPressureError(TransferQueueError, TimeoutError):
    """`put` reached its deadline while `num_global_batch` partitions were alive."""


class StorageFullError(TransferQueueError, TimeoutError):
    """No room for values. A `TimeoutError` as back-pressure is: nothing is wrong with them, and room comes back."""


class StorageTimeoutError(TransferQueueError, TimeoutError):
    """Where the values lie did not answer in time, and nobody knows it to be dead."""


class ControllerTimeoutError(TransferQueueError, TimeoutError):
    """The controller is there but did not answer in time."""


class ControllerLostError(TransferQueueError, TimeoutError):
    """The controller is gone: its socket closed or nobody listens."""


def _tree(base: type[TransferQueueError]) -> dict[str, type[TransferQueueError]]:
    found = {base.__name__: base}
    for child in base.__subclasses__():
        found |= _tree(child)
    return found


BY_NAME = _tree(TransferQueueError)


def rebuild(name: str, message: str, details: dict[str, Any]) -> TransferQueueError:
    """The error of that name with that message; a name from a newer controller becomes a `RequestError` naming it."""
    if name in BY_NAME:
        return BY_NAME[name](message, details)
    return RequestError(f"{name}: {message}", details)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint like " (did you mean 'num_n_samples'?)", or an empty string where nothing is near."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
