"""The Video-VAE against the official implementation, and the properties of its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from stepvideo_core.checkpoints.layout import read_vae_config
from stepvideo_core.checkpoints.load import expected_shapes
from stepvideo_core.config import TINY, VAE_V1, VAE_V2, VAECoderConfig, VAEConfig
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.models.vae import Posterior, VideoVAE, blend_seams
from stepvideo_core.models.vae_blocks import CausalConv3d

from .closeness import relative_error
from .random_weights import random_weights

TOLERANCE = 2e-5
ORACLE = [
    "attention=reference:eager",
    "group_norm_silu=reference:eager",
    "causal_conv3d=reference:eager",
    "conv2d=reference:eager",
]


@pytest.fixture(scope="module", params=[(), ORACLE], ids=["fast", "eager"])
def v2(
    request: pytest.FixtureRequest,
    golden: Callable[[str], Path],
    make_plan: Any,
    load_model: Any,
) -> tuple[VideoVAE, dict[str, Tensor]]:
    folder = golden("vae_v2")
    config = read_vae_config(folder / "vae" / "config.json")
    plan = make_plan(ops=request.param)
    file = folder / "vae" / "vae_v2.safetensors"
    model = load_model(lambda: VideoVAE(config, plan), "vae", file)
    return model, load_file(folder / "golden.safetensors")


def test_decode(v2: tuple[VideoVAE, dict[str, Tensor]]) -> None:
    model, data = v2
    assert relative_error(model.decode(data["latents"]), data["decoded"]) < TOLERANCE
    assert relative_error(model.decode(data["latents1"]), data["decoded1"]) < TOLERANCE


def test_every_intermediate_of_the_decoder(v2: tuple[VideoVAE, dict[str, Tensor]]) -> None:
    model, data = v2
    decoder = model.decoder
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Tensor) -> None:
            found[name] = output

        return hook

    names = {
        "dec1.mid.block_1": decoder.mid.block_1,
        "dec1.mid.attn_1": decoder.mid.attn_1,
        "dec1.mid.block_2": decoder.mid.block_2,
        "dec1.up3.block0": decoder.up[3].block[0],
        "dec1.up3.upsample": decoder.up[3].upsample,
    }
    handles = [module.register_forward_hook(keep(name)) for name, module in names.items()]
    try:
        model.decode(data["latents1"])
    finally:
        for handle in handles:
            handle.remove()
    errors = {name: relative_error(value, data[name]) for name, value in found.items()}
    assert set(errors) == set(names)
    assert max(errors.values()) < TOLERANCE, errors


def test_encode(v2: tuple[VideoVAE, dict[str, Tensor]]) -> None:
    model, data = v2
    posterior = model.encode(data["video_u8"].float() / 127.5 - 1)
    assert relative_error(posterior.mean, data["posterior_mean"]) < TOLERANCE
    assert relative_error(posterior.logvar, data["posterior_logvar"]) < TOLERANCE
    assert relative_error(posterior.std, data["posterior_std"]) < TOLERANCE
    # The golden noise is what torch draws on the CPU after this seed.
    sample = posterior.sample(torch.Generator().manual_seed(1041))
    assert relative_error(sample, data["encode_sample"]) < TOLERANCE
    image = model.encode(data["image_u8"].float() / 127.5 - 1)
    expected = Posterior.from_parameters(data["image_encoder_params"])
    assert relative_error(image.mean, expected.mean) < TOLERANCE
    assert relative_error(image.logvar, expected.logvar) < TOLERANCE


def test_seam(v2: tuple[VideoVAE, dict[str, Tensor]]) -> None:
    model, data = v2
    first, second = (
        model.decoder(chunk.transpose(1, 2)).transpose(1, 2)
        for chunk in data["latents"].split(3, dim=1)
    )
    before = torch.cat([first[:, -1:], second[:, :1]], dim=1)
    assert relative_error(before, data["seam_before_mix"]) < TOLERANCE
    front, back = data["seam_frames"].tolist()
    blended = torch.cat(list(blend_seams([first, second])), dim=1)
    assert relative_error(blended[:, front : back + 1], data["decoded"][:, front : back + 1]) < (
        TOLERANCE
    )


def test_streamed_decode_equals_whole_decode(v2: tuple[VideoVAE, dict[str, Tensor]]) -> None:
    """Bit for bit, and no chunk is held longer than its successor needs."""
    model, data = v2
    pieces = list(model.decode_chunks(data["latents"]))
    assert [piece.shape[1] for piece in pieces] == [17, 17]
    assert torch.equal(torch.cat(pieces, dim=1), model.decode(data["latents"]))


def test_bfloat16_decode_is_as_near_as_the_official_one(
    golden: Callable[[str], Path], make_plan: Any, load_model: Any
) -> None:
    folder = golden("vae_v2")
    data = load_file(folder / "golden.safetensors")
    config = read_vae_config(folder / "vae" / "config.json")
    plan = make_plan(torch.bfloat16)
    file = folder / "vae" / "vae_v2.safetensors"
    model = load_model(lambda: VideoVAE(config, plan), "vae", file, torch.bfloat16)
    output = model.decode(data["latents1"].bfloat16()).float()
    official = data["decoded1_bf16"].float()
    truth = data["decoded1"]
    assert (output - truth).norm() <= 1.5 * (official - truth).norm()


def test_version_1(golden: Callable[[str], Path], make_plan: Any) -> None:
    """The official version 1 classes, weights from a seed, one chunk each way."""
    data = load_file(golden("vae_v1/golden.safetensors"))
    config = replace(
        VAE_V1,
        z_channels=4,
        num_res_blocks=1,
        encoder=VAECoderConfig(channels=32, multipliers=(1, 2, 2, 2), temporal_levels=(1, 2)),
        decoder=VAECoderConfig(channels=32, multipliers=(2, 1, 1, 1), temporal_levels=(2, 3)),
    )
    model = VideoVAE(config, make_plan()).eval()
    weights = random_weights(expected_shapes(model))
    probe = weights["decoder.conv_in.conv.weight"].flatten()[:8]
    if not torch.equal(probe, data["weights_probe"]):
        pytest.skip("this torch draws other random numbers than the one that made the golden")
    model.load_state_dict(weights)
    assert relative_error(model.decode(data["latents"]), data["decoded"]) < TOLERANCE
    expected = Posterior.from_parameters(data["encoder_params"])
    posterior = model.encode(data["video"])
    assert relative_error(posterior.mean, expected.mean) < TOLERANCE
    assert relative_error(posterior.logvar, expected.logvar) < TOLERANCE


def test_blending_is_sequential() -> None:
    """Frames that hold their own number: 16 becomes 16.24 and 17 becomes 16.6."""
    video = torch.arange(51.0).view(1, 51, 1, 1, 1)
    blended = torch.cat(list(blend_seams([part.clone() for part in video.split(17, 1)])), dim=1)
    torch.testing.assert_close(blended[0, 16:18].flatten(), torch.tensor([16.24, 16.6]))
    torch.testing.assert_close(blended[0, 33:35].flatten(), torch.tensor([33.24, 33.6]))
    untouched = [frame for frame in range(51) if frame not in (16, 17, 33, 34)]
    assert torch.equal(blended[0, untouched], video[0, untouched])


@settings(max_examples=15, deadline=None)
@given(
    frames=st.integers(1, 7),
    cut=st.integers(1, 6),
    kernel=st.sampled_from([1, 3]),
    stride=st.sampled_from([(1, 1, 1), (2, 2, 2)]),
)
def test_causal_convolution_ignores_the_future(
    make_plan: Any, frames: int, cut: int, kernel: int, stride: tuple[int, int, int]
) -> None:
    if kernel == 1:
        stride = (1, 1, 1)
    conv = CausalConv3d(make_plan(), "vae.decoder", 4, 5, kernel=kernel, stride=stride)
    video = torch.randn(1, 4, frames + cut, 6, 6)
    changed = video.clone()
    changed[:, :, frames:] = torch.randn_like(changed[:, :, frames:])
    kept = (frames - 1) // stride[0] + 1
    torch.testing.assert_close(conv(changed)[:, :, :kept], conv(video)[:, :, :kept])
    assert not torch.equal(conv(changed), conv(video)) or cut < stride[0]


_SMALL = VAECoderConfig(channels=32, multipliers=(1, 1, 1, 1), temporal_levels=(1, 2))
_SMALL_UP = replace(_SMALL, temporal_levels=(2, 3))
_VERSIONS = {
    1: replace(VAE_V1, z_channels=4, num_res_blocks=0, encoder=_SMALL, decoder=_SMALL_UP),
    2: replace(VAE_V2, z_channels=4, num_res_blocks=0, encoder=_SMALL, decoder=_SMALL_UP),
}


@pytest.mark.parametrize(
    ("version", "frames", "latent_frames"),
    [(2, 1, 1), (2, 9, 2), (2, 17, 3), (2, 18, 4), (2, 34, 6), (1, 1, 1), (1, 17, 5), (1, 34, 10)],
)
def test_lengths(make_plan: Any, version: int, frames: int, latent_frames: int) -> None:
    config = _VERSIONS[version]
    vae = VideoVAE(config, make_plan()).eval()
    size = 32
    posterior = vae.encode(torch.randn(1, frames, 3, size, size))
    factor = config.spatial_factor
    assert factor == (16 if version == 2 else 8)
    expected = (1, latent_frames, 4, size // factor, size // factor)
    assert posterior.mean.shape == expected
    assert vae.decode(posterior.mean).shape == (1, frames, 3, size, size)
    assert config.pixel_frames(latent_frames) == frames


def test_normalisation_belongs_to_the_instance(make_plan: Any) -> None:
    """Building the other version does not change a model that exists (the official code does)."""
    plan = make_plan()
    v2 = VideoVAE(_VERSIONS[2], plan).eval()
    latents = torch.randn(1, 3, 4, 2, 2)
    before = v2.decode(latents)
    v1 = VideoVAE(_VERSIONS[1], plan).eval()
    assert torch.equal(v2.decode(latents), before)
    assert not v1.decoder.norm_out.per_frame
    assert v2.decoder.norm_out.per_frame


@pytest.mark.parametrize("frames", [5, 8, 13, 16, 22])
def test_a_length_that_cannot_be_encoded_is_refused(make_plan: Any, frames: int) -> None:
    vae = VideoVAE(_VERSIONS[2], make_plan())
    with pytest.raises(InvalidRequest, match=f"^{frames} frames cannot be encoded"):
        vae.encode(torch.zeros(1, frames, 3, 32, 32))


def test_a_size_that_cannot_be_encoded_is_refused(make_plan: Any) -> None:
    vae = VideoVAE(_VERSIONS[2], make_plan())
    with pytest.raises(InvalidRequest, match="40x32 cannot be encoded"):
        vae.encode(torch.zeros(1, 1, 3, 32, 40))


def test_official_geometry() -> None:
    assert VAE_V2.latent_frames(204) == 36
    assert VAE_V2.pixel_frames(36) == 204
    assert VAE_V1.latent_frames(17) == 5
    assert [VAE_V2.pixel_frames(n) for n in (1, 2, 3, 4)] == [1, 9, 17, 18]
    assert VAE_V2.spatial_factor == 16
    assert VAE_V1.spatial_factor == 8
    assert TINY.vae.spatial_factor == 16
    assert isinstance(VAE_V2, VAEConfig)
