"""Strict loading: official inventories, key maps, and messages that name what does not fit."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from stepvideo_core.checkpoints.configs import ComponentConfig
from stepvideo_core.checkpoints.inventory import build_on_meta, model_shapes
from stepvideo_core.checkpoints.layout import COMPONENTS, CheckpointLayout, ComponentName
from stepvideo_core.checkpoints.load import (
    KEY_MAPS,
    compare,
    file_key,
    load_weights,
    unload,
)
from stepvideo_core.checkpoints.sources import (
    SafetensorsSource,
    TensorInfo,
    TorchFileSource,
    WeightSource,
)
from stepvideo_core.config import (
    STEP_VIDEO_TI2V,
    TINY,
    VAE_V1,
    VAE_V2,
    ClipConfig,
    StepLLMConfig,
    TransformerConfig,
)
from stepvideo_core.errors import CheckpointError

CPU = torch.device("cpu")
Shapes = Mapping[str, tuple[int, ...]]


class TwoLayers(nn.Module):
    """A module small enough to write its checkpoints by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(2, 3)
        self.down = nn.Linear(3, 2, bias=False)


@pytest.fixture
def module() -> nn.Module:
    with torch.device("meta"):
        return TwoLayers()


@pytest.fixture
def weights() -> dict[str, Tensor]:
    return {
        "up.weight": torch.arange(6.0).reshape(3, 2).bfloat16(),
        "up.bias": torch.ones(3).bfloat16(),
        "down.weight": -torch.ones(2, 3).bfloat16(),
    }


def written(folder: Path, tensors: Mapping[str, Tensor]) -> SafetensorsSource:
    path = folder / "model.safetensors"
    save_file(dict(tensors), path)
    return SafetensorsSource([path])


def load(module: nn.Module, source: WeightSource, dtype: torch.dtype = torch.float32) -> None:
    load_weights(module, source, lambda key: key, dtype=dtype, device=CPU)


def infos_of(shapes: Shapes) -> dict[str, TensorInfo]:
    return {key: TensorInfo(shape, torch.bfloat16, Path("f")) for key, shape in shapes.items()}


class TestOfficialInventories:
    """The published models' tensor counts and sizes, found without memory."""

    @pytest.mark.parametrize(
        ("config", "num_tensors", "num_parameters"),
        [
            pytest.param(TransformerConfig(), 785, 29_342_478_400, id="t2v"),
            pytest.param(STEP_VIDEO_TI2V.transformer, 789, 29_382_205_504, id="ti2v"),
            pytest.param(VAE_V1, 258, 258_828_195, id="vae-v1"),
            pytest.param(VAE_V2, 262, 498_818_819, id="vae-v2"),
            pytest.param(StepLLMConfig(), 289, 19_579_600_896, id="step-llm"),
            pytest.param(ClipConfig(), 389, 350_986_240, id="clip"),
        ],
    )
    def test_counts(self, config: ComponentConfig, num_tensors: int, num_parameters: int) -> None:
        shapes = model_shapes(config)
        assert len(shapes) == num_tensors
        assert sum(math.prod(shape) for shape in shapes.values()) == num_parameters

    def test_vae_encoder(self) -> None:
        shapes = model_shapes(VAE_V2)
        encoder = [shape for key, shape in shapes.items() if key.startswith("encoder.")]
        assert sum(math.prod(shape) for shape in encoder) == 109_885_696

    @pytest.mark.parametrize(
        ("component", "config", "expected"),
        [
            ("transformer", TransformerConfig(), "5c0216a2132b082c10cb7a0e0377e681"),
            ("vae", VAE_V2, "68beaf8429b7c11aa8ca05b1bd0058bd"),
        ],
    )
    def test_published_hashes(
        self, component: ComponentName, config: ComponentConfig, expected: str
    ) -> None:
        """Another project recognises the official files by these hashes of names and shapes."""
        lines = []
        for key, shape in model_shapes(config).items():
            key = file_key(component, key)
            lines += [key, f"{key}:{'_'.join(map(str, shape))}"]
        digest = hashlib.md5(",".join(sorted(lines)).encode()).hexdigest()
        assert digest == expected

    def test_ti2v_differs_by_the_condition_only(self) -> None:
        t2v = model_shapes(TransformerConfig())
        ti2v = model_shapes(STEP_VIDEO_TI2V.transformer)
        assert ti2v["pos_embed.proj.weight"] == (6144, 128, 1, 1)
        added = {key.rsplit(".", 2)[0] for key in set(ti2v) - set(t2v)}
        assert added == {"adaln_single.emb.motion_score_embedder"}
        assert not set(t2v) - set(ti2v)

    def test_sizes_that_no_network_can_have(self) -> None:
        with pytest.raises(CheckpointError, match="no network can have the sizes"):
            build_on_meta(ClipConfig(hidden_act="gelU"))


class TestStrictLoading:
    def test_values_arrive_in_the_wanted_dtype(
        self, module: nn.Module, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        load(module, written(tmp_path, weights))
        state = module.state_dict()
        for key, tensor in weights.items():
            assert state[key].dtype == torch.float32
            assert torch.equal(state[key], tensor.float())
        assert not any(parameter.requires_grad for parameter in module.parameters())

    def test_same_dtype_is_not_copied(
        self,
        module: nn.Module,
        weights: dict[str, Tensor],
        tmp_path: Path,
        mapped_file: Callable[[Tensor], str],
    ) -> None:
        source = written(tmp_path, weights)
        load(module, source, torch.bfloat16)
        files = {mapped_file(parameter) for parameter in module.parameters()}
        assert files == {str(tmp_path / "model.safetensors")}
        del source
        assert torch.equal(module.state_dict()["up.weight"], weights["up.weight"])

    def test_other_dtype_is_copied(
        self,
        module: nn.Module,
        weights: dict[str, Tensor],
        tmp_path: Path,
        mapped_file: Callable[[Tensor], str],
    ) -> None:
        load(module, written(tmp_path, weights), torch.float32)
        assert not any("safetensors" in mapped_file(p) for p in module.parameters())

    def test_progress_counts_bytes_on_disk(
        self, module: nn.Module, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        seen: list[int] = []
        load_weights(
            module,
            written(tmp_path, weights),
            lambda key: key,
            dtype=torch.float32,
            device=CPU,
            on_bytes=seen.append,
        )
        assert sorted(seen) == [6, 12, 12]

    def test_unload_frees_the_weights(
        self, module: nn.Module, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        source = written(tmp_path, weights)
        load(module, source)
        unload(module)
        assert {parameter.device.type for parameter in module.parameters()} == {"meta"}
        load(module, source)
        assert torch.equal(module.state_dict()["up.bias"], torch.ones(3))

    def test_missing_key(
        self, module: nn.Module, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        del weights["up.bias"]
        with pytest.raises(CheckpointError, match=r"up\.bias missing") as info:
            load(module, written(tmp_path, weights))
        assert str(tmp_path / "model.safetensors") in str(info.value)
        assert all(parameter.is_meta for parameter in module.parameters())

    def test_unexpected_key(
        self, module: nn.Module, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        weights["up.scale"] = torch.ones(3)
        expected = r"up\.scale \(in model\.safetensors\) unexpected"
        with pytest.raises(CheckpointError, match=expected):
            load(module, written(tmp_path, weights))

    def test_wrong_shape(
        self, module: nn.Module, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        weights["down.weight"] = torch.zeros(3, 2)
        expected = r"down\.weight \(in model\.safetensors\) is \[3, 2\] but must be \[2, 3\]"
        with pytest.raises(CheckpointError, match=expected):
            load(module, written(tmp_path, weights))

    def test_everything_wrong_is_said_at_once(
        self, module: nn.Module, weights: dict[str, Tensor], tmp_path: Path
    ) -> None:
        del weights["up.bias"]
        weights["down.weight"] = torch.zeros(3, 2)
        weights["other"] = torch.zeros(1)
        with pytest.raises(CheckpointError) as info:
            load(module, written(tmp_path, weights))
        for part in ("up.bias missing", "other (in", "wrong shape: down.weight"):
            assert part in str(info.value)

    def test_long_lists_are_cut(self, module: nn.Module, tmp_path: Path) -> None:
        tensors = {f"t{number}": torch.zeros(1) for number in range(50)}
        with pytest.raises(CheckpointError, match="and 47 more unexpected") as info:
            load(module, written(tmp_path, tensors))
        assert "t9 " not in str(info.value)
        assert len(str(info.value)) < 500

    def test_empty_file(self, module: nn.Module, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="missing"):
            load(module, written(tmp_path, {}))


class TestKeyMaps:
    @pytest.mark.parametrize("component", COMPONENTS)
    def test_file_keys_lead_back_to_module_keys(self, component: ComponentName) -> None:
        shapes = model_shapes(getattr(TINY, component))
        keys = {file_key(component, key) for key in shapes}
        assert len(keys) == len(shapes)
        assert {KEY_MAPS[component](key) for key in keys} == set(shapes)

    def test_official_vae_names(self) -> None:
        keys = {file_key("vae", key) for key in model_shapes(VAE_V2)}
        assert {"decoder.conv_out.weight", "encoder.conv_out.conv.weight"} <= keys
        assert "decoder.conv_out.conv.weight" not in keys

    @pytest.mark.parametrize("renamed", [False, True])
    def test_vae_output_convolution_under_either_name(
        self, tiny_checkpoint: Path, tmp_path: Path, renamed: bool
    ) -> None:
        tensors = load_file(tiny_checkpoint / "vae" / "vae_v2.safetensors")
        original = tensors["decoder.conv_out.weight"]
        if renamed:
            for part in ("weight", "bias"):
                tensors[f"decoder.conv_out.conv.{part}"] = tensors.pop(f"decoder.conv_out.{part}")
        vae = build_on_meta(TINY.vae)
        source = written(tmp_path, tensors)
        load_weights(vae, source, KEY_MAPS["vae"], dtype=torch.bfloat16, device=CPU)
        assert torch.equal(vae.state_dict()["decoder.conv_out.conv.weight"], original)

    def test_both_names_at_once_are_one_too_many(self) -> None:
        shapes = model_shapes(TINY.vae)
        files = {file_key("vae", key): shape for key, shape in shapes.items()}
        files["decoder.conv_out.conv.bias"] = (3,)
        comparison = compare(shapes, infos_of(files), KEY_MAPS["vae"])
        assert comparison.extra == ("decoder.conv_out.conv.bias",)
        assert not comparison.fits

    @pytest.mark.parametrize("prefix", ["", "bert."])
    def test_clip_keys_with_and_without_prefix_and_with_heads(
        self, tiny_checkpoint: Path, tmp_path: Path, prefix: str
    ) -> None:
        official = CheckpointLayout(tiny_checkpoint).open("clip")
        tensors = {prefix + key.removeprefix("bert."): official.read(key) for key in official.infos}
        unused = {
            f"{prefix}pooler.dense.weight": torch.zeros(64, 64),
            f"{prefix}embeddings.position_ids": torch.arange(128)[None],
            "cls.predictions.bias": torch.zeros(512),
        }
        path = tmp_path / "pytorch_model.bin"
        torch.save({**tensors, **unused}, path)
        source = TorchFileSource(path)
        clip = build_on_meta(TINY.clip)
        comparison = compare(model_shapes(TINY.clip), source.infos, KEY_MAPS["clip"])
        assert set(comparison.unused) == set(unused)
        assert comparison.fits
        load_weights(clip, source, KEY_MAPS["clip"], dtype=torch.float32, device=CPU)
        key = "embeddings.word_embeddings.weight"
        assert torch.equal(clip.state_dict()[f"bert.{key}"], tensors[prefix + key])

    def test_clip_with_a_foreign_tensor(self) -> None:
        shapes = {**model_shapes(TINY.clip), "bert.adapter.weight": (3,)}
        comparison = compare(model_shapes(TINY.clip), infos_of(shapes), KEY_MAPS["clip"])
        assert comparison.extra == ("bert.adapter.weight",)
