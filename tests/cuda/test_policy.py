"""Which attention is chosen where, with fabricated devices: pure logic, no GPU."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest
import torch

from stepvideo_core.dispatch import Library
from stepvideo_core.ops import AttentionSite, RMSNormSite, Site
from stepvideo_cuda import attention, norm
from stepvideo_cuda.capability import Capability
from stepvideo_cuda.toolbox import Toolbox

GIB = 1 << 30
TURING = Capability(name="T4", major=7, minor=5, memory=16 * GIB)
A100 = Capability(name="A100", major=8, minor=0, memory=80 * GIB)
A10 = Capability(name="A10G", major=8, minor=6, memory=24 * GIB)
ADA = Capability(name="RTX 4090", major=8, minor=9, memory=24 * GIB)
H100 = Capability(name="H100", major=9, minor=0, memory=80 * GIB)
B200 = Capability(name="B200", major=10, minor=0, memory=180 * GIB)
RTX_50 = Capability(name="RTX 5090", major=12, minor=0, memory=32 * GIB)
FUTURE = Capability(name="next", major=13, minor=0, memory=64 * GIB)

_CUDA = torch.device("cuda", 0)
SELF = AttentionSite(
    name="dit.self",
    num_heads=48,
    num_kv_heads=48,
    head_dim=128,
    device=_CUDA,
    dtype=torch.bfloat16,
)
CROSS = replace(SELF, name="dit.cross", key_lengths=True)
MID = replace(SELF, name="vae.mid", num_heads=1, num_kv_heads=1, head_dim=512, causal=True)
LLM = replace(SELF, name="step_llm.self", num_kv_heads=8, causal=True, sqrt_bias=True)

ALL = ("flash2", "flash3", "flash4")


def _kernels(*, interpreted: bool = False) -> Library:
    module = ModuleType("stepvideo_kernels")
    module.interpreted = lambda: interpreted  # type: ignore[attr-defined]
    return Library(name="stepvideo_kernels", imported=module)


def _toolbox(
    device: Capability, installed: tuple[str, ...], kernels: Library | None = None
) -> Toolbox:
    def library(name: str) -> Library:
        if name in installed:
            return Library(name=name, imported=ModuleType(name))
        return Library(name=name, problem=f"{name} is not installed; optional")

    return Toolbox(
        kernels=kernels or _kernels(),
        flash2=library("flash2"),
        flash3=library("flash3"),
        flash4=library("flash4"),
        capability_of=lambda _: device,
        ranks_for=device,
    )


def _chosen(device: Capability, site: Site, installed: tuple[str, ...] = ()) -> str | None:
    """What the dispatch plan would take: highest rank first, then the name."""
    impls = attention.implementations(_toolbox(device, installed))
    for impl in sorted(impls, key=lambda impl: (-impl.rank, impl.name)):
        if not impl.why_not(site):
            return impl.name
    return None


@pytest.mark.parametrize(
    ("device", "installed", "expected"),
    [
        (H100, ALL, "flash3"),
        (H100, ("flash2",), "sdpa_cudnn"),
        (H100, (), "sdpa_cudnn"),
        (A100, ALL, "flash2"),
        (A100, (), "sdpa_flash"),
        (A10, (), "sdpa_flash"),
        (ADA, ("flash2",), "sdpa_cudnn"),
        (B200, ALL, "sdpa_cudnn"),
        (RTX_50, ALL, "sdpa_cudnn"),
        (TURING, ALL, None),
        (FUTURE, ALL, "triton"),
    ],
)
@pytest.mark.parametrize("site", [SELF, CROSS], ids=lambda site: site.name)
def test_dit_attention(
    device: Capability, installed: tuple[str, ...], expected: str | None, site: Site
) -> None:
    assert _chosen(device, site, installed) == expected


@pytest.mark.parametrize("device", [A100, A10, ADA, H100, B200, RTX_50], ids=lambda d: d.name)
@pytest.mark.parametrize("site", [MID, LLM], ids=lambda site: site.name)
def test_what_no_flash_library_takes_is_ours(device: Capability, site: Site) -> None:
    assert _chosen(device, site, ALL) == "triton"


def test_turing_has_torch_efficient_attention_in_float16() -> None:
    half = replace(SELF, dtype=torch.float16)
    assert _chosen(TURING, half, ALL) == "sdpa_efficient"
    assert _chosen(TURING, replace(half, head_dim=512, causal=True), ALL) == "sdpa_efficient"
    assert _chosen(TURING, replace(LLM, dtype=torch.float16), ALL) is None


def test_float32_goes_to_what_takes_it() -> None:
    assert _chosen(H100, replace(SELF, dtype=torch.float32), ALL) == "triton"
    assert _chosen(H100, replace(SELF, dtype=torch.float64), ALL) is None


def _reasons(device: Capability, name: str, site: Site) -> list[str]:
    impls = attention.implementations(_toolbox(device, ALL))
    return next(impl for impl in impls if impl.name == name).why_not(site)


@pytest.mark.parametrize(
    ("device", "name", "site", "sentence"),
    [
        (
            A100,
            "flash3",
            SELF,
            "it takes compute capability 9.0 to 9.0; this is A100 (compute capability 8.0)",
        ),
        (H100, "flash3", MID, "head_dim 512 > 256"),
        (H100, "sdpa_cudnn", MID, "head_dim 512 > 128"),
        (H100, "flash2", LLM, "it takes no position bias"),
        (
            H100,
            "sdpa_flash",
            replace(SELF, num_kv_heads=8),
            "it wants a key head for each query head, not 8 for 48",
        ),
        (
            H100,
            "flash2",
            replace(SELF, dtype=torch.float32),
            "it takes bfloat16, float16, not float32",
        ),
        (
            TURING,
            "sdpa_efficient",
            SELF,
            "bfloat16 needs compute capability 8.0; this is T4 (compute capability 7.5)",
        ),
        (H100, "sdpa_flash", replace(SELF, head_dim=100), "head_dim 100 is not a multiple of 8"),
        (
            TURING,
            "triton",
            SELF,
            "Triton needs compute capability 8.0; this is T4 (compute capability 7.5)",
        ),
    ],
)
def test_refusals_say_why_with_numbers(
    device: Capability, name: str, site: Site, sentence: str
) -> None:
    assert sentence in _reasons(device, name, site)


def test_the_site_s_device_decides_not_the_first_one() -> None:
    devices = {0: A100, 1: H100}
    toolbox = replace(_toolbox(A100, ALL), capability_of=lambda device: devices[device.index or 0])
    flash3 = next(impl for impl in attention.implementations(toolbox) if impl.name == "flash3")
    assert flash3.why_not(SELF)
    assert not flash3.why_not(replace(SELF, device=torch.device("cuda", 1)))


def test_every_order_names_known_implementations_once() -> None:
    known = {*attention.LIMITS, "triton"}
    for order in attention.ORDER.values():
        assert len(set(order)) == len(order) and set(order) <= known


def test_an_interpreting_environment_is_no_device() -> None:
    site = RMSNormSite(name="dit.cross", width=128, device=_CUDA, dtype=torch.bfloat16)
    toolbox = _toolbox(H100, (), _kernels(interpreted=True))
    (rms_norm, _) = norm.implementations(toolbox)
    assert "TRITON_INTERPRET" in rms_norm.why_not(site)[0]
