"""What goes into a sampler and what comes out of it: plain data, importable without torch."""

from twinkle.data_format.messages import InputFeature, Message, Trajectory
from twinkle.data_format.response import SampledSequence, SampleResponse, StopReason
from twinkle.data_format.sampling_params import SamplingParams
from twinkle.data_format.tool_calls import MalformedToolCall, ParsedResponse, ToolCall

__all__ = [
    "InputFeature",
    "MalformedToolCall",
    "Message",
    "ParsedResponse",
    "SampleResponse",
    "SampledSequence",
    "SamplingParams",
    "StopReason",
    "ToolCall",
    "Trajectory",
]
