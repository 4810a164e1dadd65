"""Compile every kernel for a real target without a device, and print what the compiler made of it.

Run as a script, outside the interpreter: `python compile_kernels.py 90 bfloat16` prints one JSON
row per launch with registers, spilled bytes, shared memory, the bytes of the widest global access
and the number of single half-precision ones.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

_POINTERS = {
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
}
_CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def _compile(function: Any, values: dict[str, Any], target: GPUTarget) -> Any:
    """What a launch with these arguments would compile, with Triton's own specialisation of 1 and
    of multiples of 16."""
    options = {name: values.pop(name) for name in ("num_warps", "num_stages") if name in values}
    signature: dict[str, str] = {}
    constants: dict[tuple[int, ...], Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    for index, parameter in enumerate(function.params):
        value = values[parameter.name]
        constant = parameter.is_constexpr or (
            isinstance(value, int) and value == 1 and not parameter.do_not_specialize
        )
        if constant:
            signature[parameter.name] = "constexpr"
            constants[index,] = value
        elif isinstance(value, torch.Tensor):
            signature[parameter.name] = _POINTERS[value.dtype]
            attributes[index,] = [["tt.divisibility", 16]]
        elif isinstance(value, int):
            signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
            if value % 16 == 0:
                attributes[index,] = [["tt.divisibility", 16]]
        else:
            signature[parameter.name] = "fp32"
    source = ASTSource(function, signature, constants, attributes)
    return triton.compile(source, target=target, options=options)


def _resources(binary: bytes) -> tuple[int, int]:
    """Registers and stack (spilled) bytes per thread of a compiled kernel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        text = subprocess.run(
            [_CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", text)
    assert found is not None, text
    return int(found[1]), int(found[2])


def report(target: GPUTarget, dtype: torch.dtype) -> None:
    """Compile the launches of the official sizes; the tensors are small, the widths are real."""

    def run(self: Any, *args: Any, grid: Any = None, warmup: bool = False, **named: Any) -> None:
        values = dict(zip(self.arg_names, args, strict=False)) | named
        compiled = _compile(self, values, target)
        registers, stack = _resources(compiled.asm["cubin"])
        widths = [
            int(count or 1) * int(bits) // 8
            for count, bits in re.findall(
                r"(?:ld|st)\.global\S*?(?:\.v(\d))?\.b(\d+)", compiled.asm["ptx"]
            )
        ]
        row = {
            "kernel": self.__name__,
            "registers": registers,
            "stack": stack,
            "shared": compiled.metadata.shared,
            "widest": max(widths),
            "narrow": sum(width == 2 for width in widths),
        }
        sys.stdout.write(json.dumps(row) + "\n")

    JITFunction.run = run  # type: ignore[method-assign]
    import stepvideo_kernels as kernels

    def made(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype)

    tables = torch.zeros(8, 128, dtype=torch.float64 if dtype == torch.float64 else torch.float32)
    axes = (64, 32, 32)
    kernels.triton_rms_norm(made(8, 48, 128), made(128), 1e-6)
    kernels.triton_rms_norm(made(8, 6144), made(6144), 1e-5)
    kernels.triton_rope_3d(made(1, 8, 48, 128), tables, tables, axes)
    kernels.triton_qk_norm_rope(
        made(1, 8, 48, 384), made(128), made(128), 1e-6, tables, tables, axes
    )
    row = made(1, 6144)
    kernels.triton_adaln_modulate(made(1, 64, 6144), made(6144), made(6144), 1e-5, row, row)
    kernels.triton_adaln_modulate(made(1, 64, 6144), None, None, 1e-6, row, row)
    kernels.triton_gated_residual(made(1, 64, 6144), made(1, 64, 6144), row)
    kernels.triton_gelu_tanh(made(8, 24576))
    for channels in (128, 512):
        x = made(1, channels, 3, 16, 16).contiguous(memory_format=torch.channels_last_3d)
        kernels.triton_group_norm_silu(x, made(channels), made(channels), 32, 1e-5, True, True, 2)
    kernels.triton_pixel_shuffle_add(made(1, 4096, 3, 4, 4), made(1, 2048, 3, 4, 4), 2)
    kernels.triton_pixel_unshuffle_add(made(1, 256, 3, 4, 4), made(1, 512, 3, 4, 4), 2)
    if dtype != torch.float64:
        q, wide_q = made(1, 256, 6, 128), made(1, 256, 1, 512)
        k = made(1, 256, 2, 128)
        kernels.triton_attention(q, q, q, 0.1, False, None, None)
        kernels.triton_attention(q, q, q, 0.1, False, (200,), None)
        kernels.triton_attention(q, k, k, 0.1, True, None, torch.zeros(6))
        kernels.triton_attention(wide_q, wide_q, wide_q, 0.1, True, None, None)


if __name__ == "__main__":
    assert os.environ.get("TRITON_INTERPRET", "0") != "1", "the interpreter compiles nothing"
    warnings.simplefilter("ignore")
    report(GPUTarget("cuda", int(sys.argv[1]), 32), getattr(torch, sys.argv[2]))
