"""vLLM's engine core with nothing around it, in the process that runs it.

vLLM's own front end turns every token into objects and text; here a response stays arrays until it has ended, which is
what leaves time for the rest.
"""

import difflib
import os
import time
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoConfig, AutoTokenizer
from vllm import SamplingParams as EngineParams
from vllm.engine.arg_utils import EngineArgs
from vllm.lora.request import LoRARequest
from vllm.model_executor.model_loader.utils import get_model_architecture
from vllm.model_executor.models import supports_lora
from vllm.platforms import current_platform
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.core_client import InprocClient
from vllm.v1.executor import Executor
from vllm.v1.outputs import LogprobsLists

from twinkle.errors import AdapterError, ConfigError, WeightSyncError
from twinkle.sampler.stopping import StopMatch, StopStringSearch
from twinkle.sampler.vllm.arena import Layout
from twinkle.sampler.vllm.messages import REPORTED, Ended, Job, Ready, Settings
from twinkle.sampler.vllm.ongoing import take_ongoing
from twinkle.sampler.vllm.row_batch import RowSpec
from twinkle.sampler.vllm.rows import EXTRA
from twinkle.sampler.vllm.slots import skip_idle_allocation

# Of two versions of an adapter the older serves the calls that began with it; one slot stays free, because vLLM gives
# rows without an adapter the weights of the last one when every slot is taken.
SPARE_SLOTS = 2
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
KV_CACHE_BYTES = (64 * 2**20, 4 * 2**30)


class Core:
    """One engine; every method is called from one thread."""

    def __init__(self, settings: Settings) -> None:
        """Start it. ConfigError for engine arguments that vLLM does not have or that are twinkle's to set."""
        config = _config(settings)
        self._folder = settings.folder
        self._client = InprocClient(config, Executor.get_class(config), log_stats=False)
        self._on_workers(ConfigError, "twinkle_install")
        scheduler = self._client.engine_core.scheduler
        skip_idle_allocation(scheduler)
        take_ongoing(scheduler, self._take)
        self._jobs: dict[str, _Growing] = {}
        self._matched: list[_Growing] = []
        self._tokenizer: Any = None
        self.ready = Ready(
            pid=os.getpid(),
            platform=current_platform.device_type,
            positions=config.model_config.max_model_len,
            max_adapters=0 if config.lora_config is None else settings.max_adapters,
        )

    @property
    def busy(self) -> bool:
        """Whether any job is not done."""
        return bool(self._jobs)

    def add(self, jobs: Iterable[Job]) -> None:
        """Take up jobs."""
        for job in jobs:
            name = str(job.number)
            self._jobs[name] = _Growing(job, self._search(job))
            self._client.add_request(_request(name, job))

    def drop(self, jobs: Iterable[int], adapters: Iterable[int]) -> None:
        """Forget jobs, then adapters that no job needs any more."""
        names = [name for name in map(str, jobs) if self._jobs.pop(name, None)]
        self._client.abort_requests(names)
        for number in adapters:
            self._on_workers(AdapterError, "twinkle_remove_adapter", number)

    def step(self) -> list[Ended]:
        """One step of the engine; the jobs that ended with it."""
        ended = [growing for output in self._client.get_output().outputs if (growing := self._end(output)) is not None]
        matched, self._matched = self._matched, []
        if matched:
            self._client.abort_requests([str(growing.job.number) for growing in matched])
        ended += matched
        for growing in ended:
            del self._jobs[str(growing.job.number)]
        return [growing.result() for growing in ended]

    def add_adapter(self, number: int, config: dict[str, Any], path: str, layout: Layout) -> None:
        """Load an adapter under a number never used before; AdapterError when vLLM cannot."""
        self._on_workers(AdapterError, "twinkle_add_adapter", number, config, path, layout)

    def update_weights(self, path: str, layout: Layout) -> None:
        """Replace all weights while no job runs; adapters stay. WeightSyncError when vLLM cannot."""
        self._on_workers(WeightSyncError, "twinkle_update_weights", path, layout)
        if not self._client.reset_prefix_cache():
            raise WeightSyncError("vLLM did not forget what it computed with the old weights; close the sampler")

    def sleep(self) -> None:
        """Move weights to host memory and give back the KV cache, while no job runs."""
        self._client.sleep(level=1)

    def wake(self) -> None:
        """Take the memory again."""
        self._client.wake_up()
        self._client.reset_prefix_cache()

    def close(self) -> None:
        """End the workers."""
        self._client.shutdown()

    def _on_workers(self, error: type[Exception], method: str, *args: Any) -> None:
        wrong = [answer for answer in self._client.collective_rpc(method, args=args) if answer is not None]
        if wrong:
            raise error(str(wrong[0]))

    def _take(self, name: str, token: int, logprobs: LogprobsLists, row: int) -> None:
        """What a step drew for a job, whose response it may end by a stop string."""
        growing = self._jobs.get(name)
        if growing is not None:
            growing.take(token, logprobs, row)
            if growing.match is not None:
                self._matched.append(growing)

    def _end(self, output: EngineCoreOutput) -> "_Growing | None":
        """The job that vLLM has ended with this; None where it goes on, or ended by a stop string just now."""
        for row, token in enumerate(output.new_token_ids):
            self._take(output.request_id, token, output.new_logprobs, row)
        growing = self._jobs.get(output.request_id)
        if growing is None or growing.match is not None or output.finish_reason is None:
            return None
        growing.stopped = output.finish_reason == FinishReason.STOP
        return growing

    def _search(self, job: Job) -> StopStringSearch | None:
        if not job.stop_strings:
            return None
        if self._tokenizer is None:
            self._tokenizer = AutoTokenizer.from_pretrained(self._folder, local_files_only=True)
        decode = self._tokenizer.decode
        return StopStringSearch(
            job.stop_strings,
            lambda tokens: str(decode(list(tokens), skip_special_tokens=True)),
            job.params.min_tokens,
        )


class _Growing:
    """A response that is not done."""

    __slots__ = ("_columns", "_ids", "_logps", "_search", "_tokens", "job", "match", "stopped")

    def __init__(self, job: Job, search: StopStringSearch | None) -> None:
        self.job, self._search = job, search
        self._columns = REPORTED + (job.params.logprobs or 0)
        self._tokens: list[int] = []
        self._logps: list[NDArray[np.float64]] = []
        self._ids: list[NDArray[np.int32]] = []
        self.match: StopMatch | None = None
        self.stopped = False

    def take(self, token: int, logprobs: LogprobsLists, row: int) -> None:
        """Note what a step drew. Its log-probabilities have as many columns as the row that asks for most."""
        self._tokens.append(token)
        self._logps.append(logprobs.logprobs[row, : self._columns])
        if self._columns > REPORTED:
            self._ids.append(logprobs.logprob_token_ids[row, REPORTED : self._columns])
        if self._search is not None:
            self.match = self._search.push(token)

    def result(self) -> Ended:
        rows = len(self._tokens)
        return Ended(
            self.job.number,
            np.array(self._tokens, np.int32),
            np.concatenate(self._logps).reshape(rows, -1),
            np.concatenate(self._ids).reshape(rows, -1) if self._ids else None,
            self.stopped or self.match is not None,
            self.match,
        )


def _request(name: str, job: Job) -> EngineCoreRequest:
    spec = RowSpec(job.params, job.ending_ids, job.seed, job.sample_index)
    params = EngineParams(
        max_tokens=job.params.max_tokens,
        stop_token_ids=list(job.ending_ids),
        ignore_eos=True,
        logprobs=0,
        detokenize=False,
        extra_args={EXTRA: spec},
    )
    adapter = LoRARequest(f"adapter{job.adapter}", job.adapter, "in memory") if job.adapter else None
    return EngineCoreRequest(
        request_id=name,
        prompt_token_ids=list(job.prompt),
        mm_features=None,
        sampling_params=params,
        pooling_params=None,
        arrival_time=time.time(),
        lora_request=adapter,
        cache_salt=None,
        data_parallel_rank=None,
    )


def _config(settings: Settings) -> Any:
    given = dict(settings.engine_args)
    _require_known(given)
    given = _defaults(settings.folder, given) | given
    args = EngineArgs(
        model=settings.folder,
        skip_tokenizer_init=True,
        worker_extension_cls="twinkle.sampler.vllm.worker.WorkerExtension",
        logits_processors=["twinkle.sampler.vllm.rows:RowBook"],
        **given,
    )
    config = args.create_engine_config()
    if settings.max_adapters == 0 or not supports_lora(get_model_architecture(config.model_config)[0]):
        return config
    args.enable_lora = True
    args.max_loras = args.max_cpu_loras = settings.max_adapters + SPARE_SLOTS
    # vLLM knows some ranks only; a higher one takes memory and changes nothing else.
    args.max_lora_rank = next((rank for rank in RANKS if rank >= settings.max_lora_rank), settings.max_lora_rank)
    return args.create_engine_config()


def _require_known(given: dict[str, Any]) -> None:
    known = {field.name for field in fields(EngineArgs)}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"engine_args has {name!r}, which is no engine argument of vLLM{hint}")


def _defaults(folder: str, given: dict[str, Any]) -> dict[str, Any]:
    """On a CPU: exact, small, and started in seconds; on other devices vLLM's own."""
    if not current_platform.is_cpu():
        return {"max_num_seqs": 256}
    return {
        "dtype": "float32",
        "enforce_eager": True,
        "max_num_seqs": 256,
        "gpu_memory_utilization": 0.05,
        "kv_cache_memory_bytes": _kv_cache_bytes(folder, given),
    }


def _kv_cache_bytes(folder: str, given: dict[str, Any]) -> int:
    """Room for every sequence at full length, within bounds."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config(decoder=True)
    heads = int(config.num_attention_heads)
    head_size: int = getattr(config, "head_dim", None) or config.hidden_size // heads
    positions: int = given.get("max_model_len") or getattr(config, "max_position_embeddings", None) or 4096
    kv_heads: int = getattr(config, "num_key_value_heads", None) or heads
    per_token = 2 * 4 * int(config.num_hidden_layers) * kv_heads * head_size
    wanted = per_token * (positions + 256) * int(given.get("max_num_seqs") or 256)
    low, high = KV_CACHE_BYTES
    return min(max(wanted, low), high)
