"""Untrained checkpoints: complete, reproducible, small, and alive enough to test with."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from stepvideo_core.checkpoints.corpus import sentences
from stepvideo_core.checkpoints.inspection import inspect_checkpoint
from stepvideo_core.checkpoints.inventory import build_on_meta
from stepvideo_core.checkpoints.layout import COMPONENTS, CheckpointLayout, ComponentName
from stepvideo_core.checkpoints.load import KEY_MAPS, load_weights
from stepvideo_core.checkpoints.tokenizer_files import write_clip_tokenizer, write_step_tokenizer
from stepvideo_core.checkpoints.untrained import write_untrained
from stepvideo_core.config import (
    PRESETS,
    STEP_VIDEO_T2V,
    T2V_SAMPLING,
    TI2V_SAMPLING,
    TINY,
    TURBO_SAMPLING,
    ModelConfig,
)
from stepvideo_core.errors import InvalidRequest, OutputError
from stepvideo_core.models.clip import HunyuanClip
from stepvideo_core.models.step_llm import StepLLM
from stepvideo_core.models.tokenizers import REQUIRED_PIECES, ClipTokenizer, StepTokenizer
from stepvideo_core.models.transformer import StepVideoTransformer
from stepvideo_core.models.vae import VideoVAE

CPU = torch.device("cpu")
MAGIC_STRINGS = [
    text
    for sampling in (T2V_SAMPLING, TI2V_SAMPLING)
    for text in (sampling.positive_suffix, sampling.negative_prompt)
]


def digests(root: Path) -> dict[str, str]:
    """Content hash of every file below a folder."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


class TestFiles:
    def test_official_layout(self, tiny_checkpoint: Path) -> None:
        assert set(digests(tiny_checkpoint)) == {
            "model_index.json",
            "scheduler/scheduler_config.json",
            "transformer/config.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/vae_v2.safetensors",
            "step_llm/config.json",
            "step_llm/model.safetensors",
            "step_llm/step1_chat_tokenizer.model",
            "hunyuan_clip/clip_text_encoder/config.json",
            "hunyuan_clip/clip_text_encoder/pytorch_model.bin",
            "hunyuan_clip/tokenizer/vocab.txt",
            "hunyuan_clip/tokenizer/tokenizer_config.json",
            "hunyuan_clip/tokenizer/special_tokens_map.json",
            "stepvideo.json",
        }

    def test_dtypes_names_and_size(self, tiny_checkpoint: Path) -> None:
        layout = CheckpointLayout(tiny_checkpoint)
        for name in COMPONENTS:
            expected = torch.float32 if name == "clip" else torch.bfloat16
            assert {info.dtype for info in layout.open(name).infos.values()} == {expected}
        assert all(key.startswith("bert.") for key in layout.open("clip").infos)
        assert layout.open("vae").infos["decoder.conv_out.weight"].shape == (3, 64, 3, 3, 3)
        size = sum(path.stat().st_size for path in tiny_checkpoint.rglob("*"))
        assert size < 25e6

    def test_settings(self, tiny_checkpoint: Path) -> None:
        settings = CheckpointLayout(tiny_checkpoint).settings
        assert settings["format"] == 1
        assert settings["preset"] == "tiny"
        assert settings["trained"] is False
        assert "fps" not in settings["sampling"]  # the task's own
        assert settings["sampling"]["num_frames"] == TINY.sampling.num_frames

    def test_same_seed_same_bytes(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        write_untrained(tmp_path / "again")
        assert digests(tmp_path / "again") == digests(tiny_checkpoint)

    def test_other_seed_other_weights(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        write_untrained(tmp_path / "other", seed=-(2**63) - 5)
        one, other = digests(tiny_checkpoint), digests(tmp_path / "other")
        differing = {name for name in one if one[name] != other[name]}
        assert differing == {name for name in one if name.endswith((".safetensors", ".bin"))}

    def test_components_are_independent(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """Other sizes of one model leave the weights of the others alone."""
        write_untrained(
            tmp_path / "t", replace(TINY, step_llm=replace(TINY.step_llm, num_layers=1))
        )
        name = "transformer/diffusion_pytorch_model.safetensors"
        assert digests(tmp_path / "t")[name] == digests(tiny_checkpoint)[name]

    def test_stages_are_reported(self, tmp_path: Path) -> None:
        stages: list[str] = []
        write_untrained(tmp_path / "model", on_stage=stages.append)
        assert stages == ["config files", "tokenizers", *COMPONENTS]

    @pytest.mark.parametrize(
        "config",
        [
            replace(TINY, transformer=replace(TINY.transformer, use_additional_conditions=True)),
            replace(TINY, vae=replace(TINY.vae, version=1)),
            replace(TINY, vae=replace(TINY.vae, num_res_blocks=1), sampling=TURBO_SAMPLING),
        ],
        ids=["ti2v", "vae-v1", "turbo"],
    )
    def test_other_shapes_of_small_models(self, tmp_path: Path, config: ModelConfig) -> None:
        write_untrained(tmp_path / "model", config, preset="mine")
        assert inspect_checkpoint(tmp_path / "model").problems == []
        assert CheckpointLayout(tmp_path / "model").config == config

    def test_turbo_preset_stores_only_what_differs_from_it(self, tmp_path: Path) -> None:
        config = replace(TINY, sampling=replace(TURBO_SAMPLING, num_frames=34))
        write_untrained(tmp_path / "model", config, preset="t2v-turbo")
        layout = CheckpointLayout(tmp_path / "model")
        assert layout.settings["sampling"] == {"num_frames": 34}
        assert layout.config == config


class TestRefusals:
    def test_folder_with_files(self, tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("precious")
        with pytest.raises(OutputError, match="is a folder with files in it"):
            write_untrained(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_empty_folder_is_filled(self, tmp_path: Path) -> None:
        (tmp_path / "model").mkdir()
        write_untrained(tmp_path / "model")
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
        assert (tmp_path / "model" / "stepvideo.json").is_file()

    def test_file_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "model").write_text("")
        with pytest.raises(OutputError, match="exists and is no folder"):
            write_untrained(tmp_path / "model")

    @pytest.mark.parametrize("preset", ["t2v", "t2v-turbo", "ti2v"])
    def test_official_sizes(self, tmp_path: Path, preset: str) -> None:
        with pytest.raises(InvalidRequest, match=rf"preset '{preset}' would take 100\.\d GB"):
            write_untrained(tmp_path / "model", PRESETS[preset], preset=preset)
        assert is_empty(tmp_path)

    def test_models_that_do_not_fit_together(self, tmp_path: Path) -> None:
        config = replace(TINY, vae=replace(TINY.vae, z_channels=4))
        with pytest.raises(InvalidRequest, match="denoises 8 latent channels"):
            write_untrained(tmp_path / "model", config)
        assert is_empty(tmp_path)

    def test_vocabulary_too_small_for_step_llm(self, tmp_path: Path) -> None:
        config = replace(TINY, step_llm=replace(TINY.step_llm, padded_vocab_size=300))
        with pytest.raises(InvalidRequest, match="padded_vocab_size 300 of Step-LLM is too small"):
            write_untrained(tmp_path / "model", config)
        assert is_empty(tmp_path)

    def test_vocabulary_too_small_for_clip(self, tmp_path: Path) -> None:
        config = replace(TINY, clip=replace(TINY.clip, vocab_size=100))
        with pytest.raises(InvalidRequest, match="vocab_size 100 of Hunyuan-CLIP is too small"):
            write_untrained(tmp_path / "model", config)
        assert is_empty(tmp_path)

    @pytest.mark.parametrize("limit", [100, 3_000, 300_000, 450_000, 1_000_000])
    def test_full_disk_leaves_nothing(self, tmp_path: Path, limit: int) -> None:
        """A limit on file sizes fails like a full disk; each one strikes another writer."""
        resource = pytest.importorskip("resource")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(OutputError, match="cannot be written"):
                write_untrained(tmp_path / "model")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert is_empty(tmp_path)


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Path) -> StepTokenizer:
    return StepTokenizer(CheckpointLayout(tiny_checkpoint).tokenizer_path)


class TestStepTokenizer:
    def test_ids_fit_the_embedding(self, tokenizer: StepTokenizer) -> None:
        assert tokenizer.vocab_size <= TINY.step_llm.padded_vocab_size

    @pytest.mark.parametrize(
        ("text", "num_pieces"),
        [
            ("a red circle moves to the left on a black background", 11),
            ("the yellow star drifts upwards", 5),
            ("一个红色的圆形在黑色背景上向左移动", 10),
            ("蓝色方块慢慢向右上方移动", 6),
        ],
    )
    def test_words_of_the_corpus_are_pieces(
        self, tokenizer: StepTokenizer, text: str, num_pieces: int
    ) -> None:
        assert tokenizer(text).length == num_pieces + 2

    def test_letter_case_does_not_matter(self, tokenizer: StepTokenizer) -> None:
        one, other = tokenizer("A Red Circle"), tokenizer("a red circle")
        assert torch.equal(one.ids_L, other.ids_L)

    @pytest.mark.parametrize("text", ["🦊 naïve Ωmega", "龘", "\u0000\t\n", "<unk>", "|"])
    def test_any_text_has_tokens(self, tokenizer: StepTokenizer, text: str) -> None:
        ids = tokenizer(text).ids_L
        assert not (ids == 0).any()  # 0 is the unknown piece
        assert ids.max() < tokenizer.vocab_size

    def test_magic_strings_need_no_bytes(self, tokenizer: StepTokenizer) -> None:
        # Every character of them is a piece of its own at worst.
        for text in MAGIC_STRINGS:
            assert tokenizer(text).length - 2 <= len(text) + 1

    @pytest.mark.parametrize("piece", [*REQUIRED_PIECES, "<s>", "</s>"])
    def test_control_strings_in_text_are_plain_text(
        self, tokenizer: StepTokenizer, piece: str
    ) -> None:
        # One id would be the control piece itself.
        assert tokenizer(piece).length > 4

    def test_small_vocabulary(self, tmp_path: Path) -> None:
        write_step_tokenizer(tmp_path / "t.model", 640)
        assert StepTokenizer(tmp_path / "t.model").vocab_size == 640


class TestClipTokenizer:
    def test_corpus_has_no_unknown_token(self, tiny_checkpoint: Path) -> None:
        folder = CheckpointLayout(tiny_checkpoint).clip_tokenizer_folder
        tokenizer = ClipTokenizer(folder)
        assert tokenizer.vocab_size <= TINY.clip.vocab_size
        unknown = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n").index("[UNK]")
        texts = ["".join(units) for units in sentences()][::25] + MAGIC_STRINGS
        for text in [*texts, "A Red CIRCLE, 42!", "stepfun"]:
            assert not (tokenizer(text).ids_P == unknown).any(), text

    def test_vocabulary_is_cut_at_the_rarest_words(self, tmp_path: Path) -> None:
        write_clip_tokenizer(tmp_path / "full", 512)
        write_clip_tokenizer(tmp_path / "cut", 330)
        full, cut = (
            (tmp_path / name / "vocab.txt").read_text(encoding="utf-8").splitlines()
            for name in ("full", "cut")
        )
        assert len(cut) == 330
        assert cut == full[:330]


@dataclass
class Models:
    """A checkpoint's models, loaded in float32."""

    layout: CheckpointLayout
    modules: dict[ComponentName, nn.Module]

    def text(self, prompt: str) -> tuple[Tensor, Tensor]:
        tokens = StepTokenizer(self.layout.tokenizer_path)(prompt)
        row = ClipTokenizer(self.layout.clip_tokenizer_folder)(prompt)
        step_llm = cast("StepLLM", self.modules["step_llm"])
        clip = cast("HunyuanClip", self.modules["clip"])
        return step_llm(tokens.ids_L[None, : tokens.length]), clip(
            row.ids_P[None], row.mask_P[None]
        )

    def velocity(self, prompt: str, time: float, seed: int = 0) -> Tensor:
        transformer = cast("StepVideoTransformer", self.modules["transformer"])
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, 3, TINY.vae.z_channels, 2, 3, generator=generator)
        return transformer(
            noise,
            transformer.modulation(torch.tensor([time])),
            transformer.encode_text(*self.text(prompt)),
            transformer.rope(noise, torch.float32),
        )


@pytest.fixture(scope="module")
def models(tiny_checkpoint: Path) -> Models:
    layout = CheckpointLayout(tiny_checkpoint)
    modules: dict[ComponentName, nn.Module] = {}
    for name in COMPONENTS:
        module = build_on_meta(layout.component_config(name))
        source = layout.open(name)
        load_weights(module, source, KEY_MAPS[name], dtype=torch.float32, device=CPU)
        modules[name] = module.eval()
    return Models(layout, modules)


class TestBehaviour:
    """What a run needs of random weights: finite numbers that depend on everything."""

    PROMPT = "a red circle moves to the left"

    def test_text_states_depend_on_the_prompt(self, models: Models) -> None:
        one, other = models.text("a red circle"), models.text("a blue circle")
        for states, others in zip(one, other, strict=True):
            assert states.isfinite().all()
            assert 0.3 < float(states.std()) < 5
            assert float((states - others).std()) > 0.1

    @pytest.mark.parametrize(
        ("prompt", "time", "seed"),
        [("a blue square moves up", 0.3, 0), (PROMPT, 0.4, 0), (PROMPT, 0.3, 1)],
        ids=["prompt", "timestep", "seed"],
    )
    def test_velocity_depends_on(self, models: Models, prompt: str, time: float, seed: int) -> None:
        velocity = models.velocity(self.PROMPT, 0.3)
        assert velocity.isfinite().all()
        assert 0.3 < float(velocity.std()) < 5
        other = models.velocity(prompt, time, seed)
        assert float((velocity - other).std()) > 0.05 * float(velocity.std())

    def test_pixels_vary_and_follow_the_latents(self, models: Models) -> None:
        vae = cast("VideoVAE", models.modules["vae"])
        latents = torch.randn(2, 3, 8, 2, 2, generator=torch.Generator().manual_seed(0))
        video = vae.decode(latents)
        assert video.shape == (2, 17, 3, 32, 32)
        assert video.isfinite().all()
        inside = (video.abs() < 1).float().mean()
        assert float(inside) > 0.5  # not clamped to flat colours
        for axis in (1, 3, 4):  # over time, rows and columns
            assert float(video.std(dim=axis).mean()) > 0.05
        assert float((video[0] - video[1]).std()) > 0.2

    def test_encoder_gives_a_usable_posterior(self, models: Models) -> None:
        vae = cast("VideoVAE", models.modules["vae"])
        pixels = torch.rand(1, 17, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        posterior = vae.encode(pixels)
        assert posterior.mean.shape == (1, 3, 8, 2, 2)
        assert float(posterior.mean.std()) > 0.1
        assert float(posterior.std.max()) < 20


def test_corpus_covers_both_languages_and_never_changes() -> None:
    corpus = ["".join(units) for units in sentences()]
    assert corpus == ["".join(units) for units in sentences()]
    assert "|" not in "".join(corpus)  # the tokenizer's delimiter
    assert len(set(corpus)) > 2000
    assert any("circle" in text for text in corpus)
    assert any("圆形" in text for text in corpus)
    assert set(MAGIC_STRINGS) <= set(corpus)
    assert STEP_VIDEO_T2V.sampling.positive_suffix in corpus
