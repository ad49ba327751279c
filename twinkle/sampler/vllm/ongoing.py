"""The tokens of rows that go on, without what only rows that end have to be asked.

For every row of every step vLLM looks for all the ways in which it may have ended, cuts its log-probabilities out into
arrays of their own, and makes an output of it. On a CPU that is a tenth of a step of 64 rows of a small model; on a
GPU it is time in which the device waits.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.outputs import LogprobsLists, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

Take = Callable[[str, int, LogprobsLists, int], None]
"""Gets a request's id, its next token, the log-probabilities of a step, and the row there."""


def take_ongoing(scheduler: Any, take: Take) -> None:
    """Hand the token of every row that goes on to ``take``; all else of a step is vLLM's scheduler's to see, and so is
    every row of a scheduler that steps ahead of its tokens, moves caches, or drafts tokens."""
    if type(scheduler) is not Scheduler or scheduler.connector is not None or scheduler.num_spec_tokens:
        return
    update, requests, longest = scheduler.update_from_output, scheduler.requests, scheduler.max_model_len

    def update_from_output(step: SchedulerOutput, output: ModelRunnerOutput) -> Any:
        tokens, logprobs, row_of = output.sampled_token_ids, output.logprobs, output.req_id_to_index
        if not tokens or logprobs is None or logprobs.cu_num_generated_tokens is not None:
            return update(step, output)
        others = {}
        for name, scheduled in step.num_scheduled_tokens.items():
            request, row = requests.get(name), row_of[name]
            drawn = tokens[row]
            if request is None or len(drawn) != 1 or not _goes_on(request, drawn[0], longest):
                others[name] = scheduled
                continue
            request.num_in_flight_tokens -= scheduled
            request.append_output_token_ids(drawn[0])
            take(name, drawn[0], logprobs, row)
        return update(replace(step, num_scheduled_tokens=others), output)

    scheduler.update_from_output = update_from_output


def _goes_on(request: Request, token: int, longest: int) -> bool:
    """Whether a row is like any other with this token, and nothing ends it: neither the token nor a length."""
    params = request.sampling_params
    return bool(
        request.status == RequestStatus.RUNNING
        and not request.num_stale_output_tokens
        and token != params.eos_token_id
        and token not in (params.stop_token_ids or ())
        and request.num_output_tokens + 1 < request.max_tokens
        and request.num_tokens + 1 < longest
    )
