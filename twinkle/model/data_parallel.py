"""The ranks that train one model together, each on rows of its own: their gradient is that of all rows."""

import contextlib
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

PATIENCE_S = 1800.0
"""How long a rank waits for the others: longer than the longest step."""
BACKENDS = {"cuda": "nccl", "npu": "hccl"}


class DataParallel:
    """One rank of ``size``. Alone it changes nothing; with others, of the process group that is set up, gradients
    and figures are summed over all."""

    def __init__(self, size: int = 1):
        self.size = size

    @classmethod
    def meet(cls, environment: dict[str, str], device_type: str) -> "DataParallel":
        """Join the ranks that ``twinkle.infra.torch_environment`` names, by gloo on CPUs, by NCCL on CUDA devices."""
        size, rank = int(environment["WORLD_SIZE"]), int(environment["RANK"])
        if size > 1:
            address = f"tcp://{environment['MASTER_ADDR']}:{environment['MASTER_PORT']}"
            dist.init_process_group(
                BACKENDS.get(device_type, "gloo"),
                init_method=address,
                rank=rank,
                world_size=size,
                timeout=timedelta(seconds=PATIENCE_S),
            )
        return cls(size)

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model as training calls it; every rank then has the parameters of rank 0."""
        return model if self.size == 1 else DistributedDataParallel(model, broadcast_buffers=False)

    def local(self, model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
        """Around a micro-batch: gradients travel with the ``last`` one of each rank alone."""
        if last or not isinstance(model, DistributedDataParallel):
            return contextlib.nullcontext()
        return model.no_sync()

    def summed(self, tensor: Tensor, device: torch.device) -> Tensor:
        """The sum over all ranks, on the CPU; the tensor itself stays as it is."""
        if self.size == 1:
            return tensor
        total = tensor.detach().to(device, copy=True)
        dist.all_reduce(total)
        return total.cpu()

    def close(self) -> None:
        """Leave the group, if there is one."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()
