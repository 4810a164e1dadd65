"""Sizes and settings of the Step-Video family, as frozen dataclasses.

The defaults of each class are the published models (Step-Video-T2V 30B, Video-VAE v2,
Step-1 text encoder, Hunyuan-CLIP); every other size derives by `dataclasses.replace` or is read
from the checkpoint's own config files. Nothing here touches torch or the file system.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

Task = Literal["text-to-video", "image-to-video"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Sizes of the diffusion transformer (`transformer/config.json`)."""

    num_attention_heads: int = 48
    attention_head_dim: int = 128
    in_channels: int = 64
    out_channels: int = 64
    num_layers: int = 48
    patch_size: int = 1
    norm_eps: float = 1e-6
    """Only of the final norm and the caption norm."""
    block_norm_eps: float = 1e-5
    """The official blocks ignore `norm_eps`: their LayerNorms keep torch's default."""
    caption_channels: tuple[int, int] = (6144, 1024)
    """Widths of (Step-LLM, Hunyuan-CLIP)."""
    use_additional_conditions: bool = False
    """Image-to-video: condition latents double the input channels, a motion score is embedded."""

    def __post_init__(self) -> None:
        if self.attention_head_dim % 8:
            raise ValueError(
                f"attention_head_dim {self.attention_head_dim} is not a multiple of 8, so RoPE-3D "
                "cannot split it into halves of 1/2, 1/4 and 1/4"
            )

    @property
    def dim(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def rope_axes(self) -> tuple[int, int, int]:
        """Channels of one head that rotate with (frame, row, column); (64, 32, 32) officially."""
        return (
            self.attention_head_dim // 2,
            self.attention_head_dim // 4,
            self.attention_head_dim // 4,
        )

    @property
    def embed_channels(self) -> int:
        """Channels that the patch embedding reads: noisy latents and, for TI2V, the condition."""
        return self.in_channels * (2 if self.use_additional_conditions else 1)

    @property
    def task(self) -> Task:
        return "image-to-video" if self.use_additional_conditions else "text-to-video"


@dataclass(frozen=True, kw_only=True)
class VAECoderConfig:
    """Widths of one half of the VAE: level i has `channels * multipliers[i]` channels."""

    channels: int
    multipliers: tuple[int, ...]
    temporal_levels: tuple[int, ...]
    """Levels whose resampling is 3-D; the others resample rows and columns only."""


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Sizes of the Video-VAE. The official repository has no file for them, so these are presets.

    Version 2 compresses 8 x 16 x 16 with per-frame normalisation and shortcut layers; version 1
    compresses 4 x 8 x 8 with normalisation over the whole chunk.
    """

    version: Literal[1, 2] = 2
    z_channels: int = 64
    num_res_blocks: int = 2
    in_channels: int = 3
    out_channels: int = 3
    encoder: VAECoderConfig = field(
        default_factory=lambda: VAECoderConfig(
            channels=32, multipliers=(4, 8, 16, 16), temporal_levels=(1, 2)
        )
    )
    decoder: VAECoderConfig = field(
        default_factory=lambda: VAECoderConfig(
            channels=128, multipliers=(1, 2, 4, 4), temporal_levels=(2, 3)
        )
    )
    frame_chunk: int = 17
    """Pixel frames in a full chunk; chunks are coded independently of one another."""

    @property
    def latent_chunk(self) -> int:
        """Latent frames in a full chunk: 3 (version 2) or 5 (version 1) for 17 pixel frames."""
        return 3 if self.version == 2 else 5

    @property
    def spatial_factor(self) -> int:
        levels = len(self.decoder.multipliers) - 1
        return 2**levels * (2 if self.version == 2 else 1)

    @property
    def norm_per_frame(self) -> bool:
        """GroupNorm statistics per frame (version 2) or over the chunk (version 1)."""
        return self.version == 2

    @property
    def surplus_frames(self) -> int:
        """Frames that the decoder makes in front of a chunk and drops: 2^(temporal levels) - 1."""
        return 2 ** len(self.decoder.temporal_levels) - 1

    def latent_frames(self, num_frames: int) -> int:
        """Latent frames for a whole number of chunks, or 1 for a single frame."""
        return max(num_frames // self.frame_chunk * self.latent_chunk, 1)

    def pixel_frames(self, latent_frames: int) -> int:
        """Pixel frames that decoding gives for this many latent frames."""
        full, rest = divmod(latent_frames, self.latent_chunk)
        return full * self.frame_chunk + (self._chunk_pixels(rest) if rest else 0)

    def _chunk_pixels(self, latent_frames: int) -> int:
        factor = 2 ** len(self.decoder.temporal_levels)
        inner = 2 * latent_frames - 1 if self.version == 2 else latent_frames
        return inner * factor - self.surplus_frames


VAE_V2 = VAEConfig()
VAE_V1 = VAEConfig(version=1, z_channels=16)


@dataclass(frozen=True, kw_only=True)
class StepLLMConfig:
    """Sizes of the Step-1 text encoder (`step_llm/config.json`)."""

    hidden_size: int = 6144
    num_layers: int = 48
    num_attention_heads: int = 48
    num_attention_groups: int = 8
    ffn_hidden_size: int = 16896
    padded_vocab_size: int = 65536
    layernorm_epsilon: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def ffn_width(self) -> int:
        """The official code rounds the width up to a multiple of 256."""
        return (self.ffn_hidden_size + 255) // 256 * 256


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Sizes of Hunyuan-CLIP, a BERT encoder (`hunyuan_clip/clip_text_encoder/config.json`)."""

    hidden_size: int = 1024
    num_hidden_layers: int = 24
    num_attention_heads: int = 16
    intermediate_size: int = 4096
    vocab_size: int = 47020
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    pad_token_id: int = 0


LLM_MAX_TOKENS = 320
CLIP_MAX_TOKENS = 77


@dataclass(frozen=True, kw_only=True)
class SamplingDefaults:
    """What a model uses where the user says nothing."""

    num_frames: int = 204
    height: int = 544
    width: int = 992
    num_steps: int = 50
    cfg_scale: float = 9.0
    time_shift: float = 13.0
    fps: int = 25
    positive_suffix: str = ""
    negative_prompt: str = ""
    denoise_filter: bool = True
    """Temporal denoising of the saved mp4, which the official runs apply."""
    motion_score: float = 5.0
    """How much moves, of image-to-video only: 2 is calm, 10 and 20 are strong."""


T2V_SAMPLING = SamplingDefaults(
    positive_suffix=(
        "超高清、HDR 视频、环境光、杜比全景声、画面稳定、流畅动作、逼真的细节、专业级构图、"
        "超现实主义、自然、生动、超细节、清晰。"
    ),
    negative_prompt=(
        "画面暗、低分辨率、不良手、文本、缺少手指、多余的手指、裁剪、低质量、颗粒状、签名、水印、"
        "用户名、模糊。"
    ),
)
TURBO_SAMPLING = replace(T2V_SAMPLING, num_steps=15, cfg_scale=5.0, time_shift=17.0)
TI2V_SAMPLING = replace(
    T2V_SAMPLING,
    num_frames=102,
    positive_suffix=(
        "画面中的主体动作表现生动自然、画面流畅、生动细节、光线统一柔和、超真实动态捕捉、"
        "大师级运镜、整体不变形、超高清、画面稳定、逼真的细节、专业级构图、超细节、清晰。"
    ),
    negative_prompt=(
        "动画、模糊、变形、毁容、低质量、拼贴、粒状、标志、抽象、插图、计算机生成、扭曲、"
        "动作不流畅、面部有褶皱、表情僵硬、畸形手指"
    ),
)

Numerics = Literal["accurate", "official"]
"""How half-precision runs round.

`official` repeats every rounding of the official pipeline, its accidents included: noise, timestep
and classifier-free guidance in the model's dtype, text length summed in it, pixel conversion in it.
`accurate` keeps only what the network was trained with (RoPE angles rounded to the dtype).
In float32 the two are the same.
"""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Everything that a checkpoint directory says about its models."""

    transformer: TransformerConfig = TransformerConfig()
    vae: VAEConfig = VAE_V2
    step_llm: StepLLMConfig = StepLLMConfig()
    clip: ClipConfig = ClipConfig()
    sampling: SamplingDefaults = T2V_SAMPLING


STEP_VIDEO_T2V = ModelConfig()
STEP_VIDEO_T2V_TURBO = replace(STEP_VIDEO_T2V, sampling=TURBO_SAMPLING)
STEP_VIDEO_TI2V = replace(
    STEP_VIDEO_T2V,
    transformer=TransformerConfig(use_additional_conditions=True),
    sampling=TI2V_SAMPLING,
)

TINY = ModelConfig(
    transformer=TransformerConfig(
        num_attention_heads=3,
        attention_head_dim=80,
        num_layers=3,
        in_channels=8,
        out_channels=8,
        caption_channels=(64, 64),
    ),
    vae=VAEConfig(
        z_channels=8,
        num_res_blocks=0,
        encoder=VAECoderConfig(channels=64, multipliers=(1, 1, 1, 1), temporal_levels=(1, 2)),
        decoder=VAECoderConfig(channels=32, multipliers=(2, 2, 1, 2), temporal_levels=(2, 3)),
    ),
    step_llm=StepLLMConfig(
        hidden_size=64,
        num_layers=2,
        num_attention_heads=4,
        num_attention_groups=2,
        ffn_hidden_size=256,
        padded_vocab_size=1024,
    ),
    clip=ClipConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        vocab_size=512,
        max_position_embeddings=128,
    ),
    sampling=SamplingDefaults(
        num_frames=17,
        height=64,
        width=64,
        num_steps=20,
        cfg_scale=4.0,
        time_shift=2.0,
        denoise_filter=False,
    ),
)
TINY_TI2V = replace(
    TINY,
    transformer=replace(TINY.transformer, use_additional_conditions=True),
)

PRESETS: dict[str, ModelConfig] = {
    "t2v": STEP_VIDEO_T2V,
    "t2v-turbo": STEP_VIDEO_T2V_TURBO,
    "ti2v": STEP_VIDEO_TI2V,
    "tiny": TINY,
    "tiny-ti2v": TINY_TI2V,
}
