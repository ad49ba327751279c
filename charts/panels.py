"""What the dashboards show: queries, units and a sentence each."""

from __future__ import annotations

from typing import NamedTuple


class Query(NamedTuple):
    """PromQL and the name of each of its series."""

    promql: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel. `unit` is Grafana's, or `bool` for yes and no; width and height are cells of its 24-column grid."""

    title: str
    text: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 12
    height: int = 8


def number(title: str, text: str, promql: str, unit: str = "short") -> Panel:
    """One figure, large."""
    return Panel(title, text, (Query(promql),), unit, kind="stat", width=4, height=4)


THIS = '{namespace="$namespace",stack="$stack"}'
"""Selects the series of the chosen stack."""


def _quantiles(metric: str, of: str = THIS) -> tuple[Query, ...]:
    rate = f"sum by (le) (rate({metric}_bucket{of}[10m]))"
    return tuple(Query(f"histogram_quantile({share}, {rate})", f"p{share * 100:g}") for share in (0.5, 0.95))


ENDED = 'trainingstack_condition{type=~"Complete|Failed|Suspended",status="True"}'


def _have(condition: str) -> str:
    return f'sum(trainingstack_condition{{type="{condition}",status="True"}}) or vector(0)'


OVERVIEW = (
    number("Stacks", "All that the operator watches.", 'count(trainingstack_condition{type="Ready"}) or vector(0)'),
    number("Ready", "Stacks that train.", _have("Ready")),
    number("Queue not ready", "Usual, while steps end.", "count(trainingstack_queue_ready == 0) or vector(0)"),
    number("Suspended", "Stacks that gave their pods back.", _have("Suspended")),
    number("Complete", "Stacks that are done.", _have("Complete")),
    number("Failed", "Stacks that gave up.", _have("Failed")),
    Panel(
        "Queue ready",
        "Whether each stack's queue has the rows that were asked for: seldom, where steps take them at once.",
        (Query("max by (namespace, name) (trainingstack_queue_ready)", "{{namespace}}/{{name}}"),),
        unit="bool",
        kind="state-timeline",
    ),
    Panel(
        "Not ready",
        "Stacks that do not train and are neither done nor suspended, and why.",
        (
            Query(
                'max by (namespace, name, reason) (trainingstack_condition{type="Ready",status!="True"}) '
                f"unless on (namespace, name) {ENDED}",
                "{{namespace}}/{{name}}: {{reason}}",
            ),
        ),
        kind="table",
    ),
    Panel(
        "Passes",
        "Looks of the operator at a stack, per second.",
        (Query("sum(rate(trainingstack_reconcile_seconds_count[5m]))", "passes"),),
        unit="ops",
    ),
    Panel(
        "Time of a pass",
        "From a key taken to all of it applied.",
        _quantiles("trainingstack_reconcile_seconds", of=""),
        unit="s",
    ),
    Panel(
        "Passes that failed",
        "By the kind of error; each is tried again.",
        (Query("sum by (error) (rate(trainingstack_reconcile_errors_total[5m]))", "{{error}}"),),
        unit="ops",
    ),
    Panel(
        "Calls to the API server",
        "Without watches; near zero while nothing changes.",
        (Query("sum by (method) (rate(trainingstack_api_calls_total[5m]))", "{{method}}"),),
        unit="reqps",
    ),
)

RUN = (
    number("Queue answers", "Whether the queue controller answers.", f"max(transfer_queue_up{THIS})", "bool"),
    number("Step", "Optimizer steps done.", f"max(twinkle_step{THIS})"),
    number("Reward", "Mean reward of the newest step.", f"max(twinkle_reward_mean{THIS})"),
    number("Steps alive", "Partitions in the queue.", f"max(transfer_queue_partitions{THIS})"),
    number("Sampled", "Tokens per second.", f"sum(rate(twinkle_sampled_tokens_total{THIS}[5m]))"),
    number("Stored", "Bytes of values in the queue.", f"max(transfer_queue_stored_bytes{THIS})", "bytes"),
    Panel(
        "Queue ready",
        "Whether each task's request could be served now.",
        (Query(f"max by (task) (transfer_queue_ready{THIS})", "{{task}}"),),
        unit="bool",
        kind="state-timeline",
    ),
    Panel(
        "Rows ready and required",
        "Rows that each task could have now, and those that its request needs together.",
        (
            Query(
                'max by (task) (transfer_queue_samples{namespace="$namespace",stack="$stack",state="ready"})',
                "{{task}} ready",
            ),
            Query(f"max by (task) (transfer_queue_required_samples{THIS})", "{{task}} required"),
        ),
    ),
    Panel(
        "Rows not ready, by reason",
        "Rows that a task cannot have yet, and why.",
        (Query(f"max by (task, reason) (transfer_queue_not_ready_samples{THIS}) > 0", "{{task}}: {{reason}}"),),
    ),
    Panel(
        "Waiting",
        "How long the first consumer of each task and the first producer have waited.",
        (
            Query(f"max by (task) (transfer_queue_consumer_wait_seconds{THIS})", "{{task}}"),
            Query(f"max(transfer_queue_producer_wait_seconds{THIS})", "producer"),
        ),
        unit="s",
    ),
    Panel("Reward", "Mean reward of a step.", (Query(f"max(twinkle_reward_mean{THIS})", "reward"),)),
    Panel(
        "Loss",
        "Of the newest step; near zero by construction with GRPO.",
        (Query(f"max(twinkle_loss{THIS})", "loss"),),
    ),
    Panel(
        "Throughput",
        "Tokens sampled and samples trained per second.",
        (
            Query(f"sum(rate(twinkle_sampled_tokens_total{THIS}[5m]))", "tokens"),
            Query(f"sum(rate(twinkle_trained_samples_total{THIS}[5m]))", "samples"),
        ),
    ),
    Panel("Time of a step", "Wall time.", _quantiles("twinkle_step_duration_seconds"), unit="s"),
    Panel(
        "Weight sync",
        "From the trainer's new weights to the last sampler that holds them.",
        _quantiles("twinkle_weight_sync_duration_seconds"),
        unit="s",
    ),
    Panel(
        "Time in the queue",
        "Inside queue calls, of each step.",
        _quantiles("twinkle_step_queue_duration_seconds"),
        unit="s",
    ),
    Panel(
        "Gap of log-probs",
        "Largest difference between a sampler's log-prob and the trainer's; beyond rounding they hold other weights.",
        (Query(f"max(twinkle_logp_diff_max{THIS})", "gap"),),
        unit="sci",
    ),
    Panel(
        "Errors of the queue",
        "Requests that ended with an error, by its class.",
        (Query(f"sum by (kind) (rate(transfer_queue_errors_total{THIS}[5m]))", "{{kind}}"),),
        unit="reqps",
    ),
)
