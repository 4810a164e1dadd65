"""The DiT against the official implementation, at every intermediate, and its own properties."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stepvideo_core.checkpoints.layout import read_transformer_config
from stepvideo_core.config import TransformerConfig
from stepvideo_core.models.embeddings import rope_tables, sinusoid
from stepvideo_core.models.transformer import StepVideoTransformer

from .closeness import relative_error

TOLERANCE = 1e-5
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
ORACLE = ["attention=reference:eager", "adaln_modulate=reference:eager"]


@pytest.fixture(scope="module", params=[(), ORACLE], ids=["fast", "eager"])
def t2v(
    request: pytest.FixtureRequest,
    golden: Callable[[str], Path],
    make_plan: Any,
    load_model: Any,
) -> tuple[StepVideoTransformer, dict[str, Tensor]]:
    folder = golden("dit_t2v")
    config = read_transformer_config(folder / "transformer" / "config.json")
    plan = make_plan(ops=request.param)
    model = load_model(lambda: StepVideoTransformer(config, plan), "transformer", folder / WEIGHTS)
    return model, load_file(folder / "golden.safetensors")


def _lengths(data: dict[str, Tensor]) -> tuple[int, ...]:
    return tuple(int(total) for total in data["encoder_attention_mask"].sum(dim=1))


def test_every_intermediate(t2v: tuple[StepVideoTransformer, dict[str, Tensor]]) -> None:
    model, data = t2v
    found: dict[str, Tensor] = {"adaln.time_proj": sinusoid(data["timestep"] * 1000)}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            found[name] = output

        return hook

    names = {
        "adaln.timestep_emb": model.adaln_single.emb.timestep_embedder,
        "caption_projection": model.caption_projection,
        "clip_projection": model.clip_projection,
        "block0.attn1": model.blocks[0].attn1,
        "block0.attn2": model.blocks[0].attn2,
        "block0.out": model.blocks[0],
        "block1.out": model.blocks[1],
    }
    handles = [module.register_forward_hook(keep(name)) for name, module in names.items()]
    try:
        text = model.encode_text(
            data["encoder_hidden_states"], data["encoder_hidden_states_2"], _lengths(data)
        )
        modulation = model.modulation(data["timestep"])
        latents = data["hidden_states"]
        output = model(latents, modulation, text, model.rope(latents, torch.float32))
    finally:
        for handle in handles:
            handle.remove()
    found["adaln.out"] = modulation.blocks_N6D.flatten(1)
    found["adaln.embedded_timestep"] = modulation.embedding_ND
    found["output"] = output
    assert text.key_lengths == _lengths(data)
    assert text.blocks[0].k_BTHD.shape[1] == data["cross.encoder_hidden_states"].shape[1]
    errors = {name: relative_error(value, data[name]) for name, value in found.items()}
    assert max(errors.values()) < TOLERANCE, errors
    assert len(found) == len(names) + 4


def test_trimmed_text_equals_padded_text(
    t2v: tuple[StepVideoTransformer, dict[str, Tensor]],
) -> None:
    """Each row run alone with its own tokens gives its row of the padded batch."""
    model, data = t2v
    clip_tokens = data["encoder_hidden_states_2"].shape[1]
    for row, length in enumerate(_lengths(data)):
        pick = slice(row, row + 1)
        text = model.encode_text(
            data["encoder_hidden_states"][pick, : length - clip_tokens],
            data["encoder_hidden_states_2"][pick],
        )
        latents = data["hidden_states"][pick]
        rope = model.rope(latents, torch.float32)
        output = model(latents, model.modulation(data["timestep"][pick]), text, rope)
        assert text.key_lengths is None
        assert relative_error(output, data["output"][pick]) < TOLERANCE


def test_feed_forward_chunks_do_not_change_the_result(
    t2v: tuple[StepVideoTransformer, dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = t2v
    feed_forward = model.blocks[0].ff
    x = data["block0.out"]
    whole = feed_forward(x)
    monkeypatch.setattr("stepvideo_core.models.blocks.FFN_CHUNK_TOKENS", 7)
    assert relative_error(feed_forward(x), whole) < 1e-6


def test_bfloat16_stays_near_float32(
    golden: Callable[[str], Path], make_plan: Any, load_model: Any
) -> None:
    """With a float32 timestep the official model in bfloat16 is 0.0077 (relative L2) off."""
    folder = golden("dit_t2v")
    data = load_file(folder / "golden.safetensors")
    config = read_transformer_config(folder / "transformer" / "config.json")
    plan = make_plan(torch.bfloat16)
    model = load_model(
        lambda: StepVideoTransformer(config, plan),
        "transformer",
        folder / WEIGHTS,
        torch.bfloat16,
    )
    half = {name: value.bfloat16() for name, value in data.items() if value.is_floating_point()}
    text = model.encode_text(
        half["encoder_hidden_states"], half["encoder_hidden_states_2"], _lengths(data)
    )
    latents = half["hidden_states"]
    rope = model.rope(latents, torch.bfloat16)
    output = model(latents, model.modulation(data["timestep"]), text, rope).float()
    assert (output - data["output"]).norm() / data["output"].norm() < 0.009


def test_image_to_video_model(
    golden: Callable[[str], Path], make_plan: Any, load_model: Any
) -> None:
    """The seam for TI2V: condition channels and the motion score."""
    folder = golden("dit_ti2v")
    data = load_file(folder / "golden.safetensors")
    config = read_transformer_config(folder / "transformer" / "config.json")
    assert config.task == "image-to-video"
    plan = make_plan()
    model = load_model(lambda: StepVideoTransformer(config, plan), "transformer", folder / WEIGHTS)
    text = model.encode_text(
        data["encoder_hidden_states"], data["encoder_hidden_states_2"], _lengths(data)
    )
    latents = data["hidden_states"]
    modulation = model.modulation(data["timestep"], float(data["motion_score"].flatten()[0]))
    rope = model.rope(latents, torch.float32)
    output = model(latents, modulation, text, rope, data["condition_hidden_states"])
    assert relative_error(output, data["output"]) < TOLERANCE


def test_sinusoid_has_the_official_values() -> None:
    embedded = sinusoid(torch.tensor([0.25]) * 1000)[0]
    head = torch.tensor([0.2410, 0.9864, -0.9614])
    tail = torch.tensor([-0.9705, 0.1644, 0.2752])
    torch.testing.assert_close(embedded[:3], head, atol=1e-4, rtol=0)
    torch.testing.assert_close(embedded[127], torch.tensor(0.9996), atol=1e-4, rtol=0)
    torch.testing.assert_close(embedded[128:131], tail, atol=1e-4, rtol=0)


def test_rope_against_the_official_tables(golden: Callable[[str], Path], make_plan: Any) -> None:
    from stepvideo_core.ops import ROPE_3D, RopeSite

    data = load_file(golden("rope3d.safetensors"))
    axes = tuple(int(width) for width in data["ch_split"])
    assert axes == TransformerConfig().rope_axes
    rotate = make_plan().bind(
        ROPE_3D, RopeSite(name="dit.self", num_heads=2, head_dim=128, axes=axes)
    )
    for index in range(3):
        grid = tuple(int(length) for length in data[f"{index}.fhw"])
        tables = rope_tables(grid, axes, dtype=torch.float32, device=torch.device("cpu"))
        output = rotate(data[f"{index}.q"], tables.cos_SD, tables.sin_SD, axes)
        assert relative_error(output, data[f"{index}.out"]) < 1e-6
    frames = rope_tables((10, 1, 1), axes, dtype=torch.float32, device=torch.device("cpu"))
    assert relative_error(frames.cos_SD[:, :64], data["cos_64"]) < 1e-6
    assert relative_error(frames.sin_SD[:, :64], data["sin_64"]) < 1e-6


def test_rope_angles_are_rounded_to_half_precision() -> None:
    """The network was trained with angles rounded to bfloat16: 61 has a spacing of 0.25 there."""
    device = torch.device("cpu")
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device": device}
    tables = rope_tables((1, 62, 1), (64, 32, 32), **options)
    # Row 61 turns by 61 / 10000^(2/32) = 34.30..., which bfloat16 rounds to 34.25.
    expected = torch.tensor(34.25).cos()
    torch.testing.assert_close(tables.cos_SD[61, 64 + 1], expected)
    official = rope_tables((1, 62, 1), (64, 32, 32), numerics="official", **options)
    assert torch.equal(official.cos_SD, tables.cos_SD.bfloat16().float())
    assert tables.cos_SD.dtype == torch.float32


def test_a_head_that_rope_cannot_split_is_refused() -> None:
    with pytest.raises(ValueError, match="attention_head_dim 12"):
        TransformerConfig(attention_head_dim=12)


@pytest.mark.parametrize("patch_size", [1, 2])
def test_patches_go_in_and_come_out_at_their_place(patch_size: int, make_plan: Any) -> None:
    """A patch embedding equals the convolution it holds; unpatchify inverts the layout."""
    config = TransformerConfig(
        num_attention_heads=1,
        attention_head_dim=16,
        num_layers=0,
        in_channels=3,
        out_channels=3,
        patch_size=patch_size,
        caption_channels=(8, 8),
    )
    model = StepVideoTransformer(config, make_plan())
    latents = torch.randn(2, 3, 3, 4, 6)
    tokens = model.pos_embed(latents)
    convolved = torch.nn.functional.conv2d(
        latents.flatten(0, 1),
        model.pos_embed.proj.weight,
        model.pos_embed.proj.bias,
        stride=patch_size,
    )
    expected = convolved.unflatten(0, (2, 3)).permute(0, 1, 3, 4, 2).flatten(1, 3)
    torch.testing.assert_close(tokens, expected)
    # proj_out's channels are (row in patch, column in patch, channel), channel fastest.
    p = patch_size
    layout = torch.arange(2 * 3 * (4 // p) * (6 // p) * p * p * 3).reshape(
        2, 3 * (4 // p) * (6 // p), p * p * 3
    )
    pixels = model._unpatchify(layout, latents.shape)
    token, row, column, channel = 1, p - 1, 0, 2
    assert pixels[0, 0, channel, row, p + column] == layout[0, token, (row * p + column) * 3 + 2]
