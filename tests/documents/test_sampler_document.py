"""Document 001: its snippets as written, through aliases for its model, its adapter and its GPUs."""

import json
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Union

import pytest

import twinkle
import twinkle.sampler
from tests.documents.fences import ABSENT, fences, present
from tests.twinkle.sampler.lora import make_adapter
from tests.twinkle.sampler.vllm.conftest import NO_VLLM
from twinkle import DeviceGroup, DeviceMesh
from twinkle.data_format import InputFeature, SampleResponse, SamplingParams, Trajectory
from twinkle.model.tiny import make_tiny_qwen2
from twinkle.template import Template

FENCES = {fence.number: fence for fence in fences("001")} if present() else {}

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


@pytest.mark.slow
@pytest.mark.timeout(590)
def test_the_vllm_snippets_run_as_written(ray_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two engines of two ranks, with an adapter; then four replicas of one rank."""
    if find_spec("vllm") is None:
        pytest.skip(NO_VLLM)
    folder, adapter = make_tiny_qwen2(tmp_path / "qwen2"), tmp_path / "lora"
    make_adapter(folder, 1).save_pretrained(str(adapter), save_embedding_layers=False)
    # Every token ends a response, so that 512 of them are not drawn by eight processes on two cores.
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(258))}))
    aliases = {"ms://Qwen/Qwen2.5-7B-Instruct": str(folder), "path/to/lora": str(adapter)}
    monkeypatch.setenv("TWINKLE_MODEL_ALIASES", json.dumps(aliases))
    monkeypatch.setenv("TWINKLE_DEVICE_ALIASES", "cuda:cpu")
    trajectories = [{"messages": [{"role": "user", "content": text}]} for text in ("one", "two and more")]
    prelude: dict[str, Any] = {"__name__": "document_001", "trajectories": trajectories}

    twinkle.initialize("ray", groups=[DeviceGroup("sampler_group", 4, "cpu", cpus_per_rank=0)])
    FENCES[2].run(prelude)
    assert [s.prompt_index for s in prelude["response"].sequences] == [0] * 4 + [1] * 4
    assert prelude["sampler"].adapter_names == ["my_lora"]
    prelude["sampler"].close()
    twinkle.initialize("local")
    with pytest.warns(UserWarning, match="TWINKLE_DEVICE_ALIASES"):
        FENCES[4].run(prelude)
    assert [s.prompt_index for s in prelude["response"].sequences] == [0, 1]
    prelude["sampler"].close()
    twinkle.initialize("local")


def test_every_fence_is_run() -> None:
    assert set(FENCES) == {1, 2, 3, 4}
