"""Samplers decide which rows a consumer gets: `SequentialSampler`, `GRPOSampler`, `DPSampler`, or one of your own.

`SeqlenBalancedSampler` balances the tokens of DP ranks; `StalenessFilter` keeps old rows from the sampler it wraps.
"""

from transfer_queue.samplers.balanced import SeqlenBalancedSampler
from transfer_queue.samplers.base import BaseSampler, Withheld
from transfer_queue.samplers.built_in import DPSampler, GRPOSampler, SequentialSampler
from transfer_queue.samplers.staleness import StalenessFilter

__all__ = [
    "BaseSampler", "DPSampler", "GRPOSampler", "SeqlenBalancedSampler", "SequentialSampler", "StalenessFilter",
    "Withheld",
]  # fmt: skip
