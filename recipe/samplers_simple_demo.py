"""Who gets which rows: the samplers of the queue, one after the other, on one machine and without Ray.

    python recipe/samplers_simple_demo.py

Every claim that it prints is checked; the first that does not hold ends it with an error.
"""

from one_per_prompt import OnePerPrompt

from transfer_queue import (
    BatchMeta,
    GRPOSampler,
    NotReadyError,
    SequentialSampler,
    TransferQueueClient,
    TransferQueueController,
)


def claim(text: str, holds: bool) -> None:
    """Print a claim that holds; end the demonstration at one that does not."""
    if not holds:
        raise SystemExit(f"this should hold, but does not: {text}")
    print(f"  - {text}")


def in_order(client: TransferQueueClient) -> None:
    """SequentialSampler: rows in the order in which they were put, each once per task."""
    client.put({"prompts": [f"question {i}" for i in range(8)]}, global_step=0)
    first = client.get_meta(["prompts"], batch_size=3, global_step=0, task_name="rollout")
    second = client.get_meta(["prompts"], batch_size=5, global_step=0, task_name="rollout")
    print(f"  rollout took rows {first.global_indexes}, then rows {second.global_indexes}")
    claim("no row came twice", first.global_indexes + second.global_indexes == list(range(8)))
    other = client.get_meta(["prompts"], batch_size=8, global_step=0, task_name="logging")
    claim("another task has all rows for itself", other.global_indexes == list(range(8)))


def whole_groups(client: TransferQueueClient) -> None:
    """GRPOSampler: a prompt's samples together, although responses are finished in any order."""
    prompts = client.put({"prompts": ["a"] * 4 + ["b"] * 4}, global_step=1)
    respond(client, prompts, [4, 1, 6, 0, 7])
    print("  responses are there for 2 of 4 samples of prompt 'a' and for 3 of 4 samples of prompt 'b'")
    try:
        client.get_meta(["prompts", "responses"], batch_size=4, global_step=1, task_name="train", timeout_s=0)
        raise SystemExit("a group that is not complete was given away")
    except NotReadyError as error:
        print(f"  NotReadyError: {error}")
    respond(client, prompts, [5])
    batch = client.get_meta(["prompts", "responses"], batch_size=4, global_step=1, task_name="train")
    print(f"  after one response more, train took rows {batch.global_indexes}")
    claim("they are the four samples of prompt 'b'", batch.global_indexes == prompts.global_indexes[4:])


def respond(client: TransferQueueClient, prompts: BatchMeta, rows: list[int]) -> None:
    """Put responses for some rows of `prompts`, one by one in this order."""
    for row in rows:
        one = BatchMeta([prompts.global_indexes[row]], [], [prompts.global_steps[row]], [prompts.group_ids[row]])
        client.put({"responses": [f"response {row}"]}, metadata=one)


def four_ranks(client: TransferQueueClient) -> None:
    """Data parallel: one id makes one reservation, of which each rank has its slice."""
    rows = client.put({"prompts": ["c"] * 4 + ["d"] * 4}, global_step=2)
    taken: list[int] = []
    for rank in (2, 0, 3, 1):
        place = {"dp_rank": rank, "dp_size": 4, "dp_group_id": "step 2"}
        batch = client.get_meta(
            ["prompts"], batch_size=2, global_step=2, task_name="logprobs", sampler_params=place, lease_s=60
        )
        client.ack(batch)
        taken += batch.global_indexes
        consumed = client.stats().tasks["logprobs"].consumed
        print(f"  rank {rank} of 4 got rows {batch.global_indexes} and acknowledged them; {consumed} rows are consumed")
    claim("slices are disjoint and complete", sorted(taken) == rows.global_indexes)
    claim("rows were consumed together, after the last rank", consumed == len(taken))


def a_sampler_of_ones_own(client: TransferQueueClient) -> None:
    """OnePerPrompt, from the module beside this one: samplers travel to the controller as import path."""
    rows = client.put({"prompts": ["e"] * 4 + ["f"] * 4}, global_step=3)
    batch = client.get_meta(["prompts"], batch_size=2, global_step=3, task_name="judge")
    print(f"  judge took rows {batch.global_indexes} of the groups {batch.group_ids}")
    claim("they are of two different prompts", batch.group_ids == [rows.group_ids[0], rows.group_ids[4]])


def a_lease(client: TransferQueueClient) -> None:
    """A lease: rows are only lent until they are acknowledged, and go back when they are not."""
    client.put({"prompts": ["g"] * 8}, global_step=4)
    lent = client.get_meta(["prompts"], batch_size=8, global_step=4, task_name="reward", lease_s=60)
    print(f"  while they are lent, why('reward') says: {client.why('reward')}")
    client.release(lent)
    again = client.get_meta(["prompts"], batch_size=8, global_step=4, task_name="reward", lease_s=60)
    claim("released rows come again, in the same order", again.global_indexes == lent.global_indexes)
    client.ack(again)
    claim("acknowledged rows are consumed", client.stats().tasks["reward"].consumed == 8)


def main() -> None:
    """One queue of 2 prompts with 4 samples each per step; every chapter fills and clears a step of its own."""
    chapters = (in_order, whole_groups, four_ranks, a_sampler_of_ones_own, a_lease)
    with (
        TransferQueueController.start(
            global_batch_size=2,
            num_n_samples=4,
            sampler=SequentialSampler(),
            task_samplers={"train": GRPOSampler(num_n_samples=4), "judge": OnePerPrompt},
        ) as controller,
        TransferQueueClient("demonstration", controller.get_info()) as client,
    ):
        for step, chapter in enumerate(chapters):
            print(chapter.__doc__)
            chapter(client)
            client.clear(step)
    print("Everything was as claimed.")


if __name__ == "__main__":
    main()
