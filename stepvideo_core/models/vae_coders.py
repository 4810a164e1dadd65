"""Encoder and decoder of the Video-VAE, for one chunk of frames."""

from __future__ import annotations

from torch import Tensor, nn

from stepvideo_core.config import VAEConfig
from stepvideo_core.dispatch.plan import DispatchPlan
from stepvideo_core.models.vae_blocks import (
    CausalConv3d,
    Downsample2d,
    Downsample3d,
    GroupNorm,
    MidAttention,
    Patchify,
    ResnetBlock,
    Unpatchify,
    Upsample2d,
    Upsample3d,
)
from stepvideo_core.ops import (
    PIXEL_SHUFFLE_ADD,
    PIXEL_UNSHUFFLE_ADD,
    PixelSite,
)


class _Level(nn.Module):
    """The residual blocks of one resolution, and the resampling behind them under its key."""

    def __init__(self, blocks: list[ResnetBlock], key: str, resample: nn.Module | None) -> None:
        super().__init__()
        self.block = nn.ModuleList(blocks)
        if resample is not None:
            self.add_module(key, resample)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        for layer in self.block:
            x_BCTHW = layer(x_BCTHW)
        for name, resample in self.named_children():
            if name != "block":
                x_BCTHW = resample(x_BCTHW)
        return x_BCTHW


class _Mid(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, plan: DispatchPlan, site: str, channels: int, *, per_frame: bool) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(plan, site, channels, channels, per_frame=per_frame)
        self.attn_1 = MidAttention(plan, channels, per_frame=per_frame)
        self.block_2 = ResnetBlock(plan, site, channels, channels, per_frame=per_frame)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x_BCTHW)))


class Encoder(nn.Module):
    """[B, 3, T, H, W] in [-1, 1] to posterior parameters [B, 2 z, T', h, w] (mean, log variance).

    T is 1-4, 9-12 or 17 for version 2: other lengths leave an even number of frames to patchify.
    """

    def __init__(self, config: VAEConfig, plan: DispatchPlan) -> None:
        super().__init__()
        site, per_frame = "vae.encoder", config.norm_per_frame
        sizes = config.encoder
        widths = [sizes.channels * multiplier for multiplier in sizes.multipliers]
        self.conv_in = CausalConv3d(plan, site, config.in_channels, sizes.channels)
        self.down = nn.ModuleList()
        width = sizes.channels
        for level, out_width in enumerate(widths):
            blocks = []
            for _ in range(config.num_res_blocks):
                blocks.append(ResnetBlock(plan, site, width, out_width, per_frame=per_frame))
                width = out_width
            resample: nn.Module | None = None
            if level in sizes.temporal_levels:
                resample = Downsample3d(plan, site, width)
            elif level < len(widths) - 1:
                resample = Downsample2d(plan, site, width)
            self.down.append(_Level(blocks, "downsample", resample))
        self.mid = _Mid(plan, site, width, per_frame=per_frame)
        self.norm_out = GroupNorm(plan, site, width, per_frame=per_frame, silu=True)
        self.patched = config.version == 2
        out_channels = 2 * config.z_channels
        if self.patched:
            inner = 32 * config.z_channels
            self.conv_patchify = Patchify(plan, site, width, inner)
            self.conv_out = CausalConv3d(plan, site, inner, out_channels)
            self.unshuffle_add = plan.bind(
                PIXEL_UNSHUFFLE_ADD,
                PixelSite(name=site, channels=out_channels, skip_channels=inner, factor=1),
            )
        else:
            self.conv_out = CausalConv3d(plan, site, width, out_channels)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        x = self.conv_in(x_BCTHW)
        for level in self.down:
            x = level(x)
        x = self.mid(x)
        if not self.patched:
            return self.conv_out(self.norm_out(x, front_frames=2), written_frames=2)
        patches = self.conv_patchify(self.norm_out(x))
        return self.unshuffle_add(self.conv_out(patches), patches, 1)


class Decoder(nn.Module):
    """Latents [B, z, T', h, w] of one chunk to pixels [B, 3, T, H, W], about [-1, 1]."""

    def __init__(self, config: VAEConfig, plan: DispatchPlan) -> None:
        super().__init__()
        site, per_frame = "vae.decoder", config.norm_per_frame
        sizes = config.decoder
        widths = [sizes.channels * multiplier for multiplier in sizes.multipliers]
        width = widths[-1]
        self.patched = config.version == 2
        if self.patched:
            inner = 32 * config.z_channels
            self.conv_in = CausalConv3d(plan, site, config.z_channels, inner)
            self.shuffle_add = plan.bind(
                PIXEL_SHUFFLE_ADD,
                PixelSite(name=site, channels=inner, skip_channels=config.z_channels, factor=1),
            )
            self.conv_unpatchify = Unpatchify(plan, site, inner, width)
        else:
            self.conv_in = CausalConv3d(plan, site, config.z_channels, width)
        self.mid = _Mid(plan, site, width, per_frame=per_frame)
        levels: list[_Level] = []
        for level in reversed(range(len(widths))):
            blocks = []
            for _ in range(config.num_res_blocks + 1):
                blocks.append(ResnetBlock(plan, site, width, widths[level], per_frame=per_frame))
                width = widths[level]
            resample: nn.Module | None = None
            if level in sizes.temporal_levels:
                resample = Upsample3d(plan, site, width, per_frame=per_frame)
            elif level > 0:
                resample = Upsample2d(plan, site, width)
            levels.insert(0, _Level(blocks, "upsample", resample))
        self.up = nn.ModuleList(levels)
        self.norm_out = GroupNorm(plan, site, width, per_frame=per_frame, silu=True)
        self.conv_out = CausalConv3d(plan, site, width, config.out_channels)
        self.surplus_frames = config.surplus_frames

    def forward(self, z_BCTHW: Tensor) -> Tensor:
        x = self.conv_in(z_BCTHW)
        if self.patched:
            x = self.conv_unpatchify(self.shuffle_add(x, z_BCTHW, 1))
        x = self.mid(x)
        for level in reversed(self.up):  # level i works at 2^-i of the pixel resolution
            x = level(x)
        x = self.conv_out(self.norm_out(x, front_frames=2), written_frames=2)
        return x[:, :, self.surplus_frames :]
