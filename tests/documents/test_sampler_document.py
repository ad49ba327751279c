"""Document 001: the snippets without vLLM, as written."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Union

import pytest

import twinkle.sampler
from tests.documents.fences import ABSENT, fences, present
from twinkle import DeviceMesh
from twinkle.data_format import InputFeature, SampleResponse, SamplingParams, Trajectory
from twinkle.model.tiny import make_tiny_qwen2
from twinkle.template import Template

FENCES = {fence.number: fence for fence in fences("001")} if present() else {}
PENDING = {2: "vLLMSampler comes with issue 3/4", 4: "vLLMSampler and mode 'ray' come with issue 3/4"}

pytestmark = pytest.mark.skipif(not present(), reason=ABSENT)


def test_the_documented_interface_is_the_interface() -> None:
    import inspect
    from typing import Optional

    prelude: dict[str, Any] = {"__name__": "document_001", "ABC": ABC, "abstractmethod": abstractmethod}
    prelude |= {"Union": Union, "List": list, "Type": type, "Optional": Optional, "Template": Template}
    prelude |= {kind.__name__: kind for kind in (InputFeature, Trajectory, SamplingParams, SampleResponse)}
    FENCES[1].run(prelude)
    documented = prelude["Sampler"]

    for name in ("sample", "add_adapter_to_model", "set_template"):
        theirs, ours = (
            inspect.signature(getattr(documented, name)),
            inspect.signature(getattr(twinkle.sampler.Sampler, name)),
        )
        documented_parameters, more = _split(ours, theirs)
        assert documented_parameters == [(p.name, p.kind, p.default) for p in theirs.parameters.values()]
        assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in more)


def _split(ours: Any, theirs: Any) -> tuple[list[Any], list[Any]]:
    """Name, kind and default of our parameters that the document has, in order, and the other parameters."""
    known = [(p.name, p.kind, p.default) for p in ours.parameters.values() if p.name in theirs.parameters]
    return known, [p for p in ours.parameters.values() if p.name not in theirs.parameters]


def test_the_torch_sampler_snippet_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_tiny_qwen2(tmp_path / "qwen2")
    monkeypatch.setenv("TWINKLE_MODEL_ALIASES", json.dumps({"ms://Qwen/Qwen2.5-7B-Instruct": str(folder)}))
    trajectories = [{"messages": [{"role": "user", "content": text}]} for text in ("one", "two and more")]
    prelude: dict[str, Any] = {"__name__": "document_001", "DeviceMesh": DeviceMesh, "trajectories": trajectories}
    prelude["params"] = SamplingParams(max_tokens=5, temperature=0.7, top_p=0.9, top_k=50)
    FENCES[3].run(prelude)

    assert [sequence.prompt_index for sequence in prelude["response"].sequences] == [0, 1]
    assert all(1 <= len(sequence.tokens) <= 5 for sequence in prelude["response"].sequences)


def test_every_fence_is_run_or_listed_as_pending() -> None:
    assert set(FENCES) == {1, 3} | set(PENDING)
    assert all("vLLMSampler" in FENCES[number].source for number in PENDING)
