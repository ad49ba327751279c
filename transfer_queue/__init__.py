"""TransferQueue: rows whose fields fill up over time, and tasks that each consume every row once.

`TransferQueueController` holds the queue, `TransferQueueClient` puts, gets and acknowledges rows, samplers decide which
rows a consumer gets. Everything is loaded at first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from transfer_queue.clash import refuse_clash

if TYPE_CHECKING:
    from transfer_queue.client import TransferQueueClient as TransferQueueClient
    from transfer_queue.controller import TransferQueueController as TransferQueueController
    from transfer_queue.errors import BackPressureError as BackPressureError
    from transfer_queue.errors import ConfigurationError as ConfigurationError
    from transfer_queue.errors import ControllerLostError as ControllerLostError
    from transfer_queue.errors import ControllerTimeoutError as ControllerTimeoutError
    from transfer_queue.errors import DPGroupError as DPGroupError
    from transfer_queue.errors import ExhaustedError as ExhaustedError
    from transfer_queue.errors import ExtentError as ExtentError
    from transfer_queue.errors import FieldError as FieldError
    from transfer_queue.errors import FieldLostError as FieldLostError
    from transfer_queue.errors import GroupError as GroupError
    from transfer_queue.errors import JournalError as JournalError
    from transfer_queue.errors import LeaseError as LeaseError
    from transfer_queue.errors import NotReadyError as NotReadyError
    from transfer_queue.errors import ProtocolError as ProtocolError
    from transfer_queue.errors import RequestError as RequestError
    from transfer_queue.errors import SamplerError as SamplerError
    from transfer_queue.errors import SamplerLostError as SamplerLostError
    from transfer_queue.errors import StepClearedError as StepClearedError
    from transfer_queue.errors import StorageFullError as StorageFullError
    from transfer_queue.errors import StorageTimeoutError as StorageTimeoutError
    from transfer_queue.errors import TransferQueueError as TransferQueueError
    from transfer_queue.loader import StreamingDataLoader as StreamingDataLoader
    from transfer_queue.meta import BatchMeta as BatchMeta
    from transfer_queue.queue_dataset import QueueDataset as QueueDataset
    from transfer_queue.samplers import BaseSampler as BaseSampler
    from transfer_queue.samplers import DPSampler as DPSampler
    from transfer_queue.samplers import GRPOSampler as GRPOSampler
    from transfer_queue.samplers import SeqlenBalancedSampler as SeqlenBalancedSampler
    from transfer_queue.samplers import SequentialSampler as SequentialSampler
    from transfer_queue.samplers import StalenessFilter as StalenessFilter
    from transfer_queue.samplers import Withheld as Withheld

_ERRORS = (
    "BackPressureError", "ConfigurationError", "ControllerLostError", "ControllerTimeoutError", "DPGroupError",
    "ExhaustedError", "ExtentError", "FieldError", "FieldLostError", "GroupError", "JournalError", "LeaseError",
    "NotReadyError", "ProtocolError", "RequestError", "SamplerError", "SamplerLostError", "StepClearedError",
    "StorageFullError", "StorageTimeoutError", "TransferQueueError",
)  # fmt: skip
_SAMPLERS = (
    "BaseSampler", "DPSampler", "GRPOSampler", "SeqlenBalancedSampler", "SequentialSampler", "StalenessFilter",
    "Withheld",
)  # fmt: skip
_HOMES = {
    "TransferQueueClient": "client",
    "TransferQueueController": "controller",
    "BatchMeta": "meta",
    "QueueDataset": "queue_dataset",
    "StreamingDataLoader": "loader",
    **dict.fromkeys(_SAMPLERS, "samplers"),
    **dict.fromkeys(_ERRORS, "errors"),
}
__all__ = sorted(_HOMES)

refuse_clash("TransferQueue", "transfer_queue")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
