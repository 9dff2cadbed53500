"""Tensors that may be in shards: one of them read whole, or given the numbers of a whole one."""

from __future__ import annotations

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether other processes hold parts of it (a DTensor, whose module is slow to import)."""
    return hasattr(tensor, "full_tensor")


def whole(tensor: Tensor) -> Tensor:
    """All of it; every process that holds a part must ask."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def put(target: Tensor, source: Tensor) -> None:
    """Copy the numbers of ``source``, of which each process has all or its shard, into ``target``."""
    if is_sharded(target) and not is_sharded(source):
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(target, DTensor)
        there = source.to(target.device)
        source = distribute_tensor(there, target.device_mesh, target.placements, src_data_rank=None)
    target.copy_(source)
