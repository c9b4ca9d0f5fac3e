"""Training in several processes (torchrun): ranks, means over processes, batch norm over the joint batch."""

from __future__ import annotations

import dataclasses
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclasses.dataclass(frozen=True)
class Processes:
    """Rank and number of processes of the run, from the environment variables of torchrun."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def join(cls, device_type: str) -> Processes:
        """Connect to the other processes with nccl on GPUs or gloo on CPUs; one process without torchrun."""
        if int(os.environ.get('WORLD_SIZE', '1')) == 1:
            return cls()
        if not dist.is_initialized():
            dist.init_process_group('nccl' if device_type == 'cuda' else 'gloo')
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ.get('LOCAL_RANK', '0')))

    def leave(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    def mean(self, values: Tensor, device: torch.device) -> Tensor:
        """Return the mean of `values` over all processes, on the CPU."""
        if self.size == 1:
            return values
        total = values.to(device)
        dist.all_reduce(total)
        return total.cpu() / self.size


class JoinedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the images of all processes, on any device; torch's SyncBatchNorm needs GPUs.

    With it the loss equals that of one process with the joint batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce

        count = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float32)
        own = torch.cat([x.float().sum((0, 2, 3)), x.float().square().sum((0, 2, 3)), count])
        total = all_reduce(own)  # differentiable: the gradient flows to the images of all
        count = total[-1].detach()  # processes may have different numbers of images
        mean, square = (total[:-1] / count).chunk(2)
        variance = (square - mean * mean).clamp(min=0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (x * scale[:, None, None] + shift[:, None, None]).to(x.dtype)


def join_batch_norms(module: nn.Module) -> None:
    """Replace every batch norm of `module`, in place, by one over all processes, with the same names and weights."""
    for part in module.modules():
        if type(part) is nn.BatchNorm2d:
            part.__class__ = JoinedBatchNorm
