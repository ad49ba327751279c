"""Samplers decide which rows a consumer gets: `SequentialSampler`, `GRPOSampler`, `DPSampler`, or one of your own."""

from transfer_queue.samplers.base import BaseSampler
from transfer_queue.samplers.built_in import DPSampler, GRPOSampler, SequentialSampler

__all__ = ["BaseSampler", "DPSampler", "GRPOSampler", "SequentialSampler"]
