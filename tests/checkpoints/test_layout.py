"""A checkpoint folder: its configs, the defaults it carries, and contradictions in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stepvideo_core.checkpoints.configs import (
    read_transformer_config,
    read_vae_config,
    transformer_config_json,
    vae_config_json,
    write_config_files,
)
from stepvideo_core.checkpoints.files import write_json
from stepvideo_core.checkpoints.layout import CheckpointLayout
from stepvideo_core.config import (
    STEP_VIDEO_T2V,
    STEP_VIDEO_TI2V,
    T2V_SAMPLING,
    TI2V_SAMPLING,
    TINY,
    TURBO_SAMPLING,
    VAE_V1,
    VAE_V2,
    ModelConfig,
    TransformerConfig,
)
from stepvideo_core.errors import CheckpointError

EditJson = Callable[..., None]

TRANSFORMER = "transformer/config.json"
VAE = "vae/config.json"
STEP_LLM = "step_llm/config.json"
CLIP = "hunyuan_clip/clip_text_encoder/config.json"


def official(root: Path, config: ModelConfig = STEP_VIDEO_T2V, vae: str = "vae_v2") -> Path:
    """The config files of an official checkpoint, with an empty file for the VAE's weights."""
    write_config_files(root, config)
    (root / "vae").mkdir()
    (root / "vae" / f"{vae}.safetensors").touch()
    return root


class TestConfig:
    def test_tiny_reads_back(self, tiny_checkpoint: Path) -> None:
        assert CheckpointLayout(tiny_checkpoint).config == TINY

    @pytest.mark.parametrize("config", [STEP_VIDEO_T2V, STEP_VIDEO_TI2V], ids=["t2v", "ti2v"])
    def test_official_sizes_read_back(self, tmp_path: Path, config: ModelConfig) -> None:
        assert CheckpointLayout(official(tmp_path, config)).config == config

    @pytest.mark.parametrize(
        ("config", "sizes"),
        [
            (STEP_VIDEO_T2V, {TRANSFORMER: 439, "model_index.json": 209}),
            (
                STEP_VIDEO_TI2V,
                {
                    TRANSFORMER: 438,
                    "model_index.json": 243,
                    "scheduler/scheduler_config.json": 174,
                },
            ),
        ],
        ids=["t2v", "ti2v"],
    )
    def test_written_files_have_the_published_lengths(
        self, tmp_path: Path, config: ModelConfig, sizes: dict[str, int]
    ) -> None:
        write_config_files(tmp_path, config)
        assert {name: (tmp_path / name).stat().st_size for name in sizes} == sizes

    @pytest.mark.parametrize(
        ("name", "task", "prompt_words"),
        [
            ("pipeline_t2v", "text-to-video", "超高清"),
            ("pipeline_ti2v", "image-to-video", "画面中的主体"),
        ],
    )
    def test_golden_checkpoints(
        self, golden: Callable[[str], Path], name: str, task: str, prompt_words: str
    ) -> None:
        layout = CheckpointLayout(golden(name))
        assert layout.config.transformer.task == task
        assert layout.config.sampling.positive_suffix.startswith(prompt_words)
        assert layout.config.vae.num_res_blocks == 1
        assert layout.is_trained

    def test_absent_fields_are_the_official_ones(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"num_layers": 2, "dropout": 0.1}')
        assert read_transformer_config(tmp_path / "config.json") == TransformerConfig(num_layers=2)

    def test_block_epsilon_is_written_only_if_unusual(self, tmp_path: Path) -> None:
        assert "block_norm_eps" not in transformer_config_json(TransformerConfig())
        unusual = TransformerConfig(block_norm_eps=1e-4)
        write_json(tmp_path / "config.json", transformer_config_json(unusual))
        assert read_transformer_config(tmp_path / "config.json") == unusual

    @pytest.mark.parametrize("vae", [VAE_V1, VAE_V2, TINY.vae, replace(TINY.vae, version=1)])
    def test_vae_round_trip(self, tmp_path: Path, vae: object) -> None:
        assert isinstance(vae, type(VAE_V2))
        write_json(tmp_path / "config.json", vae_config_json(vae))
        assert read_vae_config(tmp_path / "config.json") == vae


class TestWhichVAE:
    def test_version_2_comes_first(self, tmp_path: Path) -> None:
        root = official(tmp_path)
        (root / "vae" / "vae.safetensors").touch()
        assert CheckpointLayout(root).vae_path.name == "vae_v2.safetensors"

    def test_version_1_alone(self, tmp_path: Path) -> None:
        transformer = TransformerConfig(in_channels=16, out_channels=16)
        config = replace(STEP_VIDEO_T2V, transformer=transformer, vae=VAE_V1)
        assert CheckpointLayout(official(tmp_path, config, "vae")).config.vae == VAE_V1

    def test_none(self, tmp_path: Path) -> None:
        root = official(tmp_path)
        (root / "vae" / "vae_v2.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"vae_v2\.safetensors is missing, and so is vae"):
            _ = CheckpointLayout(root).config


class TestSampling:
    def test_defaults_follow_the_task(self, tmp_path: Path) -> None:
        assert CheckpointLayout(official(tmp_path / "a")).config.sampling == T2V_SAMPLING
        ti2v = CheckpointLayout(official(tmp_path / "b", STEP_VIDEO_TI2V))
        assert ti2v.config.sampling == TI2V_SAMPLING

    @pytest.mark.parametrize("name", ["stepvideo-t2v-turbo", "Step-Video-T2V-Turbo"])
    def test_turbo_is_known_by_its_folder(self, tmp_path: Path, name: str) -> None:
        layout = CheckpointLayout(official(tmp_path / name))
        assert layout.is_turbo
        assert layout.config.sampling == TURBO_SAMPLING

    def test_turbo_behind_a_link(self, tmp_path: Path) -> None:
        official(tmp_path / "stepvideo-t2v-turbo")
        (tmp_path / "model").symlink_to(tmp_path / "stepvideo-t2v-turbo")
        assert CheckpointLayout(tmp_path / "model").is_turbo

    @pytest.mark.parametrize(
        ("folder", "preset", "expected"),
        [("mine", "t2v-turbo", TURBO_SAMPLING), ("no-turbo", "t2v", T2V_SAMPLING)],
    )
    def test_a_named_preset_outranks_the_folder(
        self, tmp_path: Path, folder: str, preset: str, expected: object
    ) -> None:
        root = official(tmp_path / folder)
        write_json(root / "stepvideo.json", {"preset": preset})
        assert CheckpointLayout(root).config.sampling == expected

    def test_overrides(self, tmp_path: Path) -> None:
        root = official(tmp_path)
        given = {"num_frames": 34, "cfg_scale": 4, "positive_suffix": "。", "denoise_filter": False}
        write_json(root / "stepvideo.json", {"format": 1, "sampling": given, "note": "mine"})
        expected = replace(
            T2V_SAMPLING,
            num_frames=34,
            cfg_scale=4.0,
            positive_suffix="。",
            denoise_filter=False,
        )
        assert CheckpointLayout(root).config.sampling == expected

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ({"sampling": {"frames": 34}}, "unknown setting 'frames'"),
            ({"sampling": {"num_frames": "34"}}, "num_frames is '34', but must be an integer"),
            ({"sampling": {"num_frames": 0}}, "num_frames is 0, but must be an integer from 1 up"),
            ({"sampling": {"num_steps": True}}, "num_steps is True"),
            ({"sampling": {"cfg_scale": float("nan")}}, "cfg_scale is nan, but must be a finite"),
            ({"sampling": {"denoise_filter": 1}}, "denoise_filter is 1, but must be true or false"),
            ({"sampling": {"negative_prompt": None}}, "negative_prompt is None, but must be a tex"),
            ({"sampling": [1]}, r"expected an object, found \[1\]"),
            ({"format": 2}, "has format 2, but this version of stepvideo reads format 1"),
            ({"trained": "no"}, "trained is 'no', but must be true or false"),
            ({"preset": 1}, "preset is 1, but must be a text"),
        ],
    )
    def test_wrong_settings(self, tmp_path: Path, content: dict[str, object], message: str) -> None:
        root = official(tmp_path)
        (root / "stepvideo.json").write_text(json.dumps(content))
        with pytest.raises(CheckpointError, match=message) as info:
            _ = CheckpointLayout(root).config
        assert str(root / "stepvideo.json") in str(info.value)

    def test_trained_flag(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        assert not CheckpointLayout(tiny_checkpoint).is_trained
        assert CheckpointLayout(official(tmp_path)).is_trained


class TestRefusals:
    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="there is no checkpoint folder"):
            CheckpointLayout(tmp_path / "nowhere")

    def test_another_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="holds no Step-Video checkpoint"):
            CheckpointLayout(tmp_path)

    @pytest.mark.parametrize("name", [TRANSFORMER, VAE, STEP_LLM, CLIP, "model_index.json"])
    def test_broken_json_says_where(self, tiny_copy: Path, name: str) -> None:
        (tiny_copy / name).write_text('{\n  "version": 2\n  "z_channels": 8\n}')
        with pytest.raises(CheckpointError, match=r"at line 3, column 3") as info:
            _ = CheckpointLayout(tiny_copy).config
        assert str(tiny_copy / name) in str(info.value)

    @pytest.mark.parametrize("content", [b"[1]", b"\xff\xfe", b""])
    def test_no_json_object(self, tiny_copy: Path, content: bytes) -> None:
        (tiny_copy / TRANSFORMER).write_bytes(content)
        with pytest.raises(CheckpointError, match=r"transformer.config\.json"):
            _ = CheckpointLayout(tiny_copy).config

    @pytest.mark.parametrize("name", [TRANSFORMER, STEP_LLM, CLIP])
    def test_missing_config(self, tiny_copy: Path, name: str) -> None:
        (tiny_copy / name).unlink()
        with pytest.raises(CheckpointError, match=r"config\.json is missing"):
            _ = CheckpointLayout(tiny_copy).config

    @pytest.mark.parametrize(
        ("file", "changes", "message"),
        [
            (TRANSFORMER, {"num_layers": 0}, "num_layers is 0, but must be an integer from 1 up"),
            (TRANSFORMER, {"attention_head_dim": 36}, "36 is not a multiple of 8"),
            (TRANSFORMER, {"caption_channels": [64]}, "caption_channels must be the widths of"),
            (TRANSFORMER, {"caption_channels": 64}, "caption_channels is 64, but must be a list"),
            (TRANSFORMER, {"out_channels": 4}, "in_channels is 8 but out_channels 4"),
            (TRANSFORMER, {"norm_elementwise_affine": True}, "norm_elementwise_affine true"),
            (TRANSFORMER, {"use_additional_conditions": 1}, "is 1, but must be true or false"),
            (STEP_LLM, {"num_attention_heads": 5}, "hidden_size 64 is not a multiple of num_atte"),
            (STEP_LLM, {"num_attention_groups": 3}, "num_attention_heads 4 is not a multiple of"),
            (STEP_LLM, {"layernorm_epsilon": "1e-5"}, "layernorm_epsilon is '1e-5'"),
            (CLIP, {"num_attention_heads": 7}, "hidden_size 64 is not a multiple of"),
            (CLIP, {"max_position_embeddings": 64}, "every prompt is padded to 77 tokens"),
            (CLIP, {"position_embedding_type": "relative_key"}, "'relative_key' is not supported"),
            (VAE, {"version": 3}, "version 3 is neither 1 nor 2"),
            (VAE, {"encoder": 3}, "encoder must be an object"),
            (VAE, {"encoder": {"ch_mult": [1, 1]}}, "must name two of the levels 0 to 1"),
            (VAE, {"decoder": {"ch_mult": [1, 1, 1]}}, "must name two of the levels 0 to 2"),
            (
                VAE,
                {"encoder": {"ch_mult": [1, 1, 1]}},
                "the encoder has 3 levels but the decoder 4",
            ),
        ],
    )
    def test_values_that_no_model_has(
        self,
        tiny_copy: Path,
        edit_json: EditJson,
        file: str,
        changes: dict[str, object],
        message: str,
    ) -> None:
        edit_json(tiny_copy / file, **changes)
        with pytest.raises(CheckpointError, match=message) as info:
            _ = CheckpointLayout(tiny_copy).config
        assert str(tiny_copy / file) in str(info.value)

    @pytest.mark.parametrize(
        ("file", "changes", "message"),
        [
            (VAE, {"z_channels": 4}, "denoises 8 latent channels .* but the VAE has 4"),
            (STEP_LLM, {"hidden_size": 128}, "Step-LLM gives text states of width 128 .* reads 64"),
            (CLIP, {"hidden_size": 32}, "Hunyuan-CLIP gives text states of width 32 .* reads 64"),
            (
                TRANSFORMER,
                {"caption_channels": [32, 16]},
                r"reads 32 \(caption_channels\[0\]\); .* reads 16 \(caption_channels\[1\]\)",
            ),
        ],
    )
    def test_models_that_do_not_fit_together(
        self,
        tiny_copy: Path,
        edit_json: EditJson,
        file: str,
        changes: dict[str, object],
        message: str,
    ) -> None:
        edit_json(tiny_copy / file, **changes)
        with pytest.raises(CheckpointError, match=message):
            _ = CheckpointLayout(tiny_copy).config

    def test_another_pipeline(self, tiny_copy: Path, edit_json: EditJson) -> None:
        edit_json(tiny_copy / "model_index.json", _class_name="FluxPipeline")
        with pytest.raises(CheckpointError, match="describes a 'FluxPipeline'"):
            _ = CheckpointLayout(tiny_copy).config

    @pytest.mark.parametrize("changes", [{"solver": "heun"}, {"reverse": True}])
    def test_another_sampler(
        self, tiny_copy: Path, edit_json: EditJson, changes: dict[str, object]
    ) -> None:
        edit_json(tiny_copy / "scheduler" / "scheduler_config.json", **changes)
        with pytest.raises(CheckpointError, match="sampled with solver 'euler' and reverse false"):
            _ = CheckpointLayout(tiny_copy).config
