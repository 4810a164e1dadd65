"""The stand-in for CANN, through torch_npu's own allocator, streams, events and generators."""

from __future__ import annotations

import ctypes
import os

import pytest
import torch

import stepvideo_virtual_npu
from stepvideo_virtual_npu import SOCS, PolicyViolation, VirtualNpuUnavailable
from stepvideo_virtual_npu.cann.elf_reader import read_linkage
from stepvideo_virtual_npu.cann.libraries import package_folder

DEVICE = torch.device("npu:0")


def test_the_device_is_there() -> None:
    assert torch.accelerator.current_accelerator(check_available=True) == torch.device("npu")
    assert torch.accelerator.device_count() == 1
    assert torch.npu.utils.get_soc_version() == SOCS["910B2"].version
    assert torch.npu.is_bf16_supported()
    assert torch.npu.is_jit_compile_false()
    assert "910B2" in torch.npu.get_device_name(0)


def test_it_starts_once() -> None:
    with pytest.raises(VirtualNpuUnavailable, match="runs already in this process, as 910B2"):
        stepvideo_virtual_npu.activate()


def test_nothing_was_written_beside_torch_npu() -> None:
    """The generated libraries are in memory only."""
    folder = package_folder("torch_npu")
    assert not (folder.parent / "torch_npu.libs").exists()
    assert "libascendcl.so" in read_linkage(folder / "lib" / "libtorch_npu.so").needed
    maps = open(f"/proc/{os.getpid()}/maps").read()
    assert "/memfd:libascendcl.so" in maps


def test_memory_is_counted() -> None:
    """With a tensor that needs a segment of its own, whatever other tests have left behind."""
    torch.accelerator.empty_cache()
    before = torch.accelerator.memory_allocated(DEVICE)
    free, total = torch.accelerator.get_memory_info(DEVICE)
    torch.accelerator.reset_peak_memory_stats(DEVICE)
    size = 96 << 20
    tensor = torch.ones(size, dtype=torch.uint8, device=DEVICE)
    assert torch.accelerator.memory_allocated(DEVICE) - before >= size
    assert torch.accelerator.get_memory_info(DEVICE)[0] <= free - size
    del tensor
    assert torch.accelerator.memory_allocated(DEVICE) == before
    assert torch.accelerator.max_memory_allocated(DEVICE) - before >= size
    torch.accelerator.empty_cache()
    assert torch.accelerator.get_memory_info(DEVICE) == (free, total)
    assert total == SOCS["910B2"].memory


def test_memory_ends() -> None:
    with pytest.raises(torch.OutOfMemoryError, match=r"NPU out of memory. Tried to allocate 65"):
        torch.empty(65 << 30, dtype=torch.uint8, device=DEVICE)


def test_fresh_memory_promises_nothing() -> None:
    """Not zeros, as the host would give: whoever forgets to write them must notice."""
    torch.accelerator.empty_cache()
    assert bool(torch.empty(8 << 20, device=DEVICE).isnan().all())


def test_streams_and_events() -> None:
    stream = torch.npu.Stream()
    first, last = (torch.npu.Event(enable_timing=True) for _ in range(2))
    with torch.npu.stream(stream):
        first.record()
        product = torch.ones(64, 64, device=DEVICE) @ torch.ones(64, 64, device=DEVICE)
        last.record()
    torch.npu.current_stream().wait_stream(stream)
    torch.accelerator.synchronize()
    assert last.query()
    assert first.elapsed_time(last) > 0
    assert last.elapsed_time(first) < 0
    assert product.cpu().eq(64).all()


def test_pinned_memory() -> None:
    host = torch.arange(1000.0).pin_memory()
    assert host.is_pinned()
    there = host.to(DEVICE, non_blocking=True)
    back = torch.empty(1000).pin_memory()
    back.copy_(there, non_blocking=True)
    torch.accelerator.synchronize()
    assert torch.equal(back, torch.arange(1000.0))


def test_seeds_repeat_and_streams_move_on() -> None:
    def draw() -> torch.Tensor:
        return torch.randn(50, device=DEVICE).cpu()

    torch.npu.manual_seed(7)
    first, second = draw(), draw()
    assert not torch.equal(first, second)
    torch.npu.manual_seed(7)
    assert torch.equal(draw(), first)
    state = torch.npu.get_rng_state()
    after = draw()
    torch.npu.set_rng_state(state)
    assert torch.equal(draw(), after)
    own = torch.Generator(DEVICE).manual_seed(7)
    assert torch.equal(torch.randn(50, device=DEVICE, generator=own).cpu(), first)


def test_generators_of_another_device_are_refused() -> None:
    with pytest.raises((PolicyViolation, RuntimeError), match="Expected a 'npu' device type"):
        torch.randn(3, device=DEVICE, generator=torch.Generator())
    with pytest.raises(PolicyViolation, match="Expected a 'npu' device type"):
        torch.empty(3, device=DEVICE).normal_(generator=torch.Generator())


@pytest.mark.parametrize("name", ["aclopCompileAndExecute", "aclrtMapMem", "rtKernelLaunch"])
def test_functions_that_are_not_modelled_fail(name: str) -> None:
    """Success of a stub would pass for a kernel that ran."""
    library = ctypes.CDLL("libascendcl.so")
    assert getattr(library, name)() == 500000
    library.aclGetRecentErrMsg.restype = ctypes.c_char_p
    assert library.aclGetRecentErrMsg() == f"the virtual NPU does not model {name}".encode()
