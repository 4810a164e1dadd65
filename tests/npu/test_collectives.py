"""Collectives on device tensors, by two processes over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

_WORKER = """
import os, torch, torch.distributed as dist
from stepvideo_virtual_npu import PolicyViolation

rank = int(os.environ["RANK"])
dist.init_process_group("cpu:gloo,npu:hccl")
x = torch.arange(4.0, device="npu") + 10 * rank

total = x.clone()
dist.all_reduce(total)
assert total.tolist() == [10, 12, 14, 16], total

gathered = [torch.empty(4, device="npu") for _ in range(2)]
dist.all_gather(gathered, x)
assert [part[0].item() for part in gathered] == [0, 10]

exchanged = torch.empty(4, device="npu")
dist.all_to_all_single(exchanged, x)
assert exchanged.tolist() == ([0, 1, 10, 11] if rank == 0 else [2, 3, 12, 13]), exchanged

sent = x.clone()
dist.broadcast(sent, src=1)
assert sent[0].item() == 10

if rank == 0:
    dist.send(x, dst=1)
else:
    received = torch.empty(4, device="npu")
    dist.recv(received, src=0)
    assert received.tolist() == [0, 1, 2, 3]

try:
    dist.all_reduce(torch.ones(4, 4, device="npu").t()[1:3])
except PolicyViolation as refused:
    print(refused)
dist.barrier()
dist.destroy_process_group()
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_processes(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(_WORKER)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "stepvideo_virtual_npu", "--", "python", str(worker)]
    processes = [
        subprocess.Popen(
            command,
            env={**os.environ, **address, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "HCCL takes contiguous tensors only" in out
