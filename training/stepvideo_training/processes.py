"""One process or several: FSDP2 under torchrun, and how a full tensor becomes a shard and back."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, Shard


@dataclass(frozen=True)
class Processes:
    """This process among all: its number, how many there are, and the mesh if several."""

    device: torch.device
    rank: int = 0
    size: int = 1
    mesh: DeviceMesh | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> range:
        """The samples of a batch that are this process' own; `count` is a multiple of `size`."""
        each = count // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    def shard(self, module: nn.Module, units: Iterable[nn.Module]) -> None:
        """Shard a module's parameters, unit by unit, then the rest; nothing for one process."""
        if self.mesh is None:
            return
        for unit in units:
            fully_shard(unit, mesh=self.mesh)
        fully_shard(module, mesh=self.mesh)

    @contextlib.contextmanager
    def gathered(self, module: nn.Module) -> Iterator[None]:
        """Within the block the module's parameters are whole, so that its parts can be called."""
        units = [part for part in module.modules() if isinstance(part, FSDPModule)]
        for unit in units:
            unit.unshard()
        try:
            yield
        finally:
            for unit in units:
                unit.reshard()

    def mean(self, value: Tensor) -> Tensor:
        """The average of a scalar over all processes."""
        if self.mesh is not None:
            dist.all_reduce(value)
            value = value / self.size
        return value

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.mesh is not None:
            dist.barrier()


def join_processes(device: torch.device) -> Processes:
    """The processes that torchrun started, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Processes(device)
    if device.type != "cpu":
        device = torch.device(device.type, int(os.environ["LOCAL_RANK"]))
    mesh = init_device_mesh(device.type, (size,))
    return Processes(device, dist.get_rank(), size, mesh)


def leave_processes(processes: Processes) -> None:
    """End the group that `join_processes` made."""
    if processes.mesh is not None:
        dist.destroy_process_group()


def full_tensor(tensor: Tensor) -> Tensor:
    """All of a tensor that may be sharded; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def own_part(tensor: Tensor, full: Tensor) -> Tensor:
    """Of a full tensor that every process has, what this one holds of `tensor`; nothing is sent."""
    if not isinstance(tensor, DTensor):
        return full
    (placement,) = tensor.placements
    assert isinstance(placement, Shard), placement
    pieces = full.chunk(tensor.device_mesh.size(), placement.dim)
    rank = tensor.device_mesh.get_local_rank()
    return pieces[rank] if rank < len(pieces) else full.narrow(placement.dim, 0, 0)


def local(tensor: Tensor) -> Tensor:
    """The part of a tensor that this process holds, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def copy_into(target: Tensor, full: Tensor) -> None:
    """Put the values of a full tensor into one that may be sharded."""
    local(target).copy_(own_part(target, full))
