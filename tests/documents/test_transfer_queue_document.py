"""Every snippet of document 000, as written, in one namespace, as a reader would type them one after the other."""

from collections.abc import Iterator
from typing import Any

import pytest

import transfer_queue
from tests.documents.fences import ABSENT, fences, present
from transfer_queue import GRPOSampler, TransferQueueController

FENCES = fences("000") if present() else []
ROWS = 32

pytestmark = pytest.mark.skipif(not present(), reason=ABSENT)


def filled_controller() -> Any:
    """A live queue with prompts and responses of step 0: what the snippets read was put by somebody else."""
    controller = TransferQueueController.start(
        global_batch_size=ROWS // 4, num_n_samples=4, sampler=GRPOSampler(num_n_samples=4)
    )
    client = transfer_queue.TransferQueueClient("prelude", controller.get_info())
    client.put({"prompts": ["p"] * ROWS, "responses": ["r"] * ROWS}, global_step=0)
    client.close()
    return controller


@pytest.fixture(scope="module")
def namespace(ray_cluster: Any) -> Iterator[dict[str, object]]:
    """The prelude, all of it: a live ``TransferQueueClient(...)``, and the names ray, global_step, controller_info."""
    real = transfer_queue.TransferQueueClient
    controllers = []

    def client(*args: Any, **kwargs: Any) -> Any:
        if args == (...,):
            controllers.append(filled_controller())
            return real("a reader", controllers[-1].get_info())
        return real(*args, **kwargs)

    controllers.append(filled_controller())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transfer_queue, "TransferQueueClient", client)
        yield {
            "__name__": "document_000",
            "ray": ray_cluster,
            "global_step": 0,
            "controller_info": controllers[0].get_info(),
        }
    for controller in controllers:
        controller.stop()


@pytest.mark.parametrize("fence", FENCES, ids=lambda fence: f"fence-{fence.number}-line-{fence.line}")
def test_the_snippet_runs_as_written(fence: Any, namespace: dict[str, object]) -> None:
    fence.run(namespace)


def test_the_snippets_left_what_they_promise(namespace: dict[str, Any]) -> None:
    batch = namespace["batch_meta"]

    assert len(batch.global_indexes) == 8
    assert batch.fields == ["prompts", "responses"]
    sampler = namespace["MyCustomSampler"]()
    assert sampler.sample([4, 5, 6], 2) == [4, 5]


def test_every_fence_of_the_document_was_found() -> None:
    assert len(FENCES) == 10
