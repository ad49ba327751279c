"""What goes into a sampler and what comes out of it: plain data, importable without torch."""

from twinkle.data_format.messages import InputFeature, Message, Trajectory
from twinkle.data_format.response import SampledSequence, SampleResponse, StopReason
from twinkle.data_format.sampling_params import SamplingParams

__all__ = [
    "InputFeature",
    "Message",
    "SampleResponse",
    "SampledSequence",
    "SamplingParams",
    "StopReason",
    "Trajectory",
]
