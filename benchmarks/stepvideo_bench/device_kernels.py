"""Every operator at the sizes of a 544x992x204 video: time, rate, share of the probed roof."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stepvideo_bench.device_measure import Bench, Row
from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.models.embeddings import rope_tables
from stepvideo_core.models.step_llm import sqrt_alibi_slopes
from stepvideo_core.ops import (
    ADALN_MODULATE,
    ATTENTION,
    CAUSAL_CONV3D,
    GATED_RESIDUAL,
    GELU_TANH,
    GROUP_NORM_SILU,
    PIXEL_SHUFFLE_ADD,
    QK_NORM_ROPE,
    RMS_NORM,
    ROPE_3D,
    AttentionSite,
    ConvSite,
    Cost,
    GroupNormSite,
    ModulationSite,
    OpContract,
    PixelSite,
    RMSNormSite,
    RopeSite,
    Site,
)

AXES = (64, 32, 32)


# Operations of an attention above which these need hundreds of GiB or thousands of launches.
_UNFUSED_LIMIT = {"eager": 1 << 40, "chunked": 1 << 44}


@dataclass(frozen=True, kw_only=True)
class KernelCase:
    """One call: an operator at a site, and how its arguments are made."""

    op: OpContract[Any]
    site: Site
    make: Callable[[], tuple[Any, ...]]


def cases(bench: Bench, dtype: torch.dtype) -> Iterator[KernelCase]:
    """The operators of a forward and of a decoder chunk; tiny stand-ins when not `bench.real`."""
    device = bench.device
    grid, heads = ((36, 34, 62), 48) if bench.real else ((3, 2, 2), 2)
    tokens, dim, head = grid[0] * grid[1] * grid[2], heads * 128, 128

    def made(*shape: int) -> Tensor:
        return torch.randn(shape, device=device, dtype=dtype)

    def video(*shape: int) -> Tensor:
        # As the layer in front leaves it: the npu's convolutions know channels first only.
        x = made(*shape)
        return x if device.type == "npu" else x.movedim(1, -1).contiguous().movedim(-1, 1)

    def case(
        op: OpContract[Any],
        site: Site,
        make: Callable[[], tuple[Any, ...]],
    ) -> KernelCase:
        site = replace(site, device=device, dtype=dtype)
        return KernelCase(op=op, site=site, make=make)

    def attention(site: AttentionSite, queries: int, keys: int) -> KernelCase:
        slopes = sqrt_alibi_slopes(site.num_heads).to(device) if site.sqrt_bias else None
        return case(
            ATTENTION,
            site,
            lambda: (
                made(1, queries, site.num_heads, site.head_dim),
                *(made(1, keys, site.num_kv_heads, site.head_dim) for _ in range(2)),
                site.head_dim**-0.5,
                site.causal,
                None,
                slopes,
            ),
        )

    modulation = ModulationSite(name="dit.block", width=dim, affine=True)
    row = (1, dim)
    yield case(
        RMS_NORM,
        RMSNormSite(name="dit.cross", width=head),
        lambda: (made(1, tokens, heads, head), made(head), 1e-6),
    )
    tables = rope_tables(grid, AXES, dtype=dtype, device=device)
    yield case(
        ROPE_3D,
        RopeSite(name="dit.self", num_heads=heads, head_dim=head, axes=AXES),
        lambda: (made(1, tokens, heads, head), tables.cos_SD, tables.sin_SD, AXES),
    )
    yield case(
        QK_NORM_ROPE,
        RopeSite(name="dit.self", num_heads=heads, head_dim=head, axes=AXES),
        lambda: (
            made(1, tokens, heads, 3 * head),
            made(head),
            made(head),
            1e-6,
            tables.cos_SD,
            tables.sin_SD,
            AXES,
        ),
    )
    yield case(
        ADALN_MODULATE,
        modulation,
        lambda: (made(1, tokens, dim), made(dim), made(dim), 1e-5, made(*row), made(*row)),
    )
    yield case(
        GATED_RESIDUAL,
        modulation,
        lambda: (made(1, tokens, dim), made(1, tokens, dim), made(*row)),
    )
    chunk = min(tokens, 8192)
    yield case(
        GELU_TANH,
        ModulationSite(name="dit.ffn", width=4 * dim),
        lambda: (made(1, chunk, 4 * dim),),
    )
    # The widest activation of the decoder, 2.76e9 elements, and a middle one.
    shapes = [(256, 20, 544, 992), (512, 10, 136, 248)] if bench.real else [(64, 2, 6, 5)]
    for channels, frames, height, width in shapes:
        yield case(
            GROUP_NORM_SILU,
            GroupNormSite(
                name="vae.decoder", channels=channels, num_groups=32, per_frame=True, silu=True
            ),
            lambda c=channels, t=frames, h=height, w=width: (  # type: ignore[misc]
                video(1, c, t, h, w), made(c), made(c), 32, 1e-5, True, True, 2,
            ),
        )  # fmt: skip
    c_in, c_out, frames, height, width = (256, 128, 20, 544, 992) if bench.real else (8, 8, 3, 6, 5)
    yield case(
        CAUSAL_CONV3D,
        ConvSite(
            name="vae.decoder", in_channels=c_in, out_channels=c_out, kernel=3, stride=(1, 1, 1)
        ),
        lambda: (
            video(1, c_in, frames + 2, height, width),
            made(c_out, c_in, 3, 3, 3),
            made(c_out),
            (1, 1, 1),
            0,
        ),
    )
    wide, skip, frames, height, width = (4096, 2048, 3, 34, 62) if bench.real else (64, 32, 3, 2, 2)
    yield case(
        PIXEL_SHUFFLE_ADD,
        PixelSite(name="vae.decoder", channels=wide, skip_channels=skip, factor=2),
        lambda: (
            video(1, wide, frames, height, width),
            video(1, skip, frames, height, width),
            2,
        ),
    )
    self_site = AttentionSite(name="dit.self", num_heads=heads, num_kv_heads=heads, head_dim=head)
    yield attention(
        replace(self_site, name="dit.cross", key_lengths=True),
        tokens,
        397 if bench.real else 9,
    )
    mid = AttentionSite(name="vae.mid", num_heads=1, num_kv_heads=1, head_dim=512, causal=True)
    yield attention(mid, *(2 * [42_160 if bench.real else 20]))
    llm = AttentionSite(
        name="step_llm.self",
        num_heads=heads,
        num_kv_heads=heads // (6 if bench.real else 1),
        head_dim=head,
        causal=True,
        sqrt_bias=True,
    )
    yield attention(llm, *(2 * [320 if bench.real else 20]))
    yield attention(self_site, tokens, tokens)


def kernel_rows(bench: Bench, registry: BackendRegistry, only: str | None = None) -> Iterator[Row]:
    """One row per operator and implementation that accepts it, the reference beside ours.

    only: the name of the one implementation to measure.
    """
    torch.manual_seed(0)
    for case in cases(bench, torch.bfloat16 if bench.real else torch.float32):
        arguments: tuple[Any, ...] | None = case.make()
        assert arguments is not None
        cost = case.op.cost(*arguments)
        for backend in (bench.backend, "reference"):
            for impl in registry.implementations(backend):
                if impl.op is not case.op or only not in (None, impl.name):
                    continue
                row: Row = {
                    "op": case.op.name,
                    "site": case.site.name,
                    "impl": f"{backend}:{impl.name}",
                    "dtype": str(case.site.dtype).removeprefix("torch."),
                }
                reasons = impl.why_not(case.site)
                if reasons:
                    yield row | {"status": "refused", "reasons": reasons}
                elif bench.time_left < 20 and bench.real:
                    yield row | {"status": "skipped", "reasons": ["no time left"]}
                elif case.op is ATTENTION and cost.flops > _UNFUSED_LIMIT.get(
                    impl.name, cost.flops
                ):
                    yield row | {"status": "skipped", "reasons": ["it would take minutes"]}
                else:
                    yield row | _timed(bench, cost, impl.fn, arguments)
        arguments = None


def _timed(bench: Bench, cost: Cost, fn: Callable[..., Any], arguments: tuple[Any, ...]) -> Row:
    try:
        with torch.no_grad():
            seconds = bench.measure(lambda: fn(*arguments))
            peak = bench.peak_memory(lambda: fn(*arguments))
    except torch.OutOfMemoryError:  # expected of definitions in float32 at these sizes
        return {"status": "skipped", "reasons": ["out of memory"]}
    # One implementation that fails on this device must not cost the measurements of the others.
    except Exception as error:  # noqa: BLE001
        return {"status": "failed", "reasons": [f"{type(error).__name__}: {error}"[:300]]}
    row: Row = {
        "status": "measured",
        "ms": seconds * 1e3,
        "GB/s": cost.num_bytes / seconds / 1e9,
        "% of copy": 100 * cost.num_bytes / seconds / bench.copy_rate,
        "peak GiB": peak / 2**30,
    }
    if cost.flops:
        row["TFLOP/s"] = cost.flops / seconds / 1e12
        row["% of matmul"] = 100 * cost.flops / seconds / bench.product_rate
    return row
