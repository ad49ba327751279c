"""Ranks that train one model together, as processes that meet through gloo."""

import itertools
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests.twinkle.model.conftest import random_batch
from twinkle.model.batch import TrainBatch
from twinkle.model.config import LoraSettings, ModelConfig, OptimConfig
from twinkle.model.data_parallel import DataParallel
from twinkle.model.policy import Policy
from twinkle.rl.config import AGGREGATIONS, AlgoConfig

RANKS = 2
CASES = list(itertools.product(AGGREGATIONS, [True, False]))
ROWS = [range(3), range(3, 8)]  # of each rank: not equally many, and in micro-batches of two not equally many either


def batch() -> TrainBatch:
    return replace(random_batch(rows=8, lengths=(1, 6)), weights_B=torch.tensor([1.0] * 7 + [0.0]))


def stepped(folder: str, aggregation: str, lora: bool, rows: range, parallel: DataParallel | None) -> dict[str, Any]:
    """Gradient, figures and weights of two updates on some of the rows."""
    config = ModelConfig(id=folder, lora=LoraSettings(enabled=lora))
    policy = Policy(folder, config, OptimConfig(microbatch_rows=2, max_grad_norm=0.5), parallel)
    algo = AlgoConfig(aggregation=aggregation, kl_coef=0.1, updates_per_step=2, constant_length=6)
    policy.begin_step(batch().rows(rows.start, rows.stop), algo, 1.0)
    gradient = [p.grad.clone() for p in policy.model.parameters() if p.grad is not None]
    return {"gradient": gradient, "stats": vars(policy.finish_step()), "weights": policy.export_weights().tensors}


def run_rank(rank: int, port: int, folder: str, results: str) -> None:
    torch.set_num_threads(1)
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(RANKS)}
    parallel = DataParallel.meet(environment, "cpu")
    found = [stepped(folder, aggregation, lora, ROWS[rank], parallel) for aggregation, lora in CASES]
    parallel.close()
    torch.save(found, f"{results}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tiny_opt: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What each rank found, case by case."""
    results = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(run_rank, (port, str(tiny_opt), str(results)), nprocs=RANKS)
    return [torch.load(results / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("case", range(len(CASES)), ids=[f"{aggregation}-{lora}" for aggregation, lora in CASES])
def test_the_gradient_of_ranks_is_that_of_one(tiny_opt: Path, ranks: list[Any], case: int) -> None:
    alone = stepped(str(tiny_opt), *CASES[case], range(8), None)

    for found in (rank[case] for rank in ranks):
        for ours, theirs in zip(found["gradient"], alone["gradient"], strict=True):
            assert_close(ours, theirs, atol=1e-6, rtol=0)
        assert found["stats"] == pytest.approx(alone["stats"], abs=1e-5)
    assert max(float(each.abs().max()) for each in alone["gradient"]) > 1e-3


def test_all_ranks_have_the_same_weights_bit_for_bit(ranks: list[Any]) -> None:
    for first, second in zip(*ranks, strict=True):
        for name, tensor in first["weights"].items():
            assert torch.equal(tensor, second["weights"][name]), name


def test_one_rank_needs_no_others() -> None:
    alone = DataParallel.meet({"WORLD_SIZE": "1", "RANK": "0"}, "cpu")
    model, figures = torch.nn.Linear(1, 1), torch.ones(2)

    assert alone.wrapped(model) is model
    assert alone.summed(figures, torch.device("cpu")) is figures
    alone.close()
