"""Conversion to training's layout and back: bit by bit, and what is refused."""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepvideo_core.checkpoints import conversion
from stepvideo_core.checkpoints.configs import transformer_config_json
from stepvideo_core.checkpoints.conversion import hf_to_mm, mm_to_hf, resplit
from stepvideo_core.checkpoints.files import write_json
from stepvideo_core.checkpoints.inventory import model_shapes
from stepvideo_core.checkpoints.megatron.rules import (
    divide,
    join,
    official_key,
    piece_shape,
    rule_of,
    training_key,
    whole_shape,
)
from stepvideo_core.checkpoints.megatron.sizes import config_of
from stepvideo_core.checkpoints.megatron.split import ParallelSplit
from stepvideo_core.checkpoints.streams import Entry, SafetensorsStream
from stepvideo_core.checkpoints.targets import MegatronTarget
from stepvideo_core.config import (
    STEP_VIDEO_T2V,
    STEP_VIDEO_TI2V,
    TransformerConfig,
)
from stepvideo_core.errors import CheckpointError, InvalidRequest, OutputError
from stepvideo_core.memory.meter import PeakMeter

HEADS = 8
SMALL = TransformerConfig(
    num_attention_heads=HEADS,
    attention_head_dim=8,
    in_channels=4,
    out_channels=4,
    num_layers=4,
    caption_channels=(24, 16),
)
SMALL_TI2V = replace(SMALL, use_additional_conditions=True)
MOTION_KEY = "adaln_single.emb.motion_score_embedder.linear_1.weight"


@functools.cache
def shapes_of(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    return model_shapes(config)


def random_weights(config: TransformerConfig, seed: int = 0) -> dict[str, Tensor]:
    """bfloat16 tensors of random bits, NaNs among them: what is copied must be copied exactly."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randint(-(2**15), 2**15, shape, generator=generator, dtype=torch.int16).view(
            torch.bfloat16
        )
        for key, shape in shapes_of(config).items()
    }


def write_official(root: Path, config: TransformerConfig, seed: int = 0) -> dict[str, Tensor]:
    """An official transformer folder with random weights, which are returned."""
    weights = random_weights(config, seed)
    write_json(root / "transformer" / "config.json", transformer_config_json(config))
    save_file(weights, root / "transformer" / "diffusion_pytorch_model.safetensors")
    return weights


def bits(tensors: dict[str, Tensor]) -> dict[str, tuple[torch.dtype, tuple[int, ...], bytes]]:
    """What must be equal for tensors to be the same, whatever they hold."""
    return {
        key: (t.dtype, tuple(t.shape), t.contiguous().view(torch.uint8).numpy().tobytes())
        for key, t in tensors.items()
    }


def read_official(root: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in (root / "transformer").glob("*.safetensors"):
        found |= load_file(path)
    return found


def load_rank(folder: Path) -> dict[str, Tensor]:
    """As the training code reads it."""
    content = torch.load(folder / "model_optim_rng.pt", weights_only=True)
    model: dict[str, Tensor] = content["model"]
    return model


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("official")
    write_official(root, SMALL_TI2V)
    return root


@pytest.fixture
def training(official: Path, tmp_path: Path) -> Path:
    """A training checkpoint of 2 ranks and 2 stages that a test may damage."""
    hf_to_mm(official, tmp_path / "mm", num_ranks=2, layers="1,3").run()
    return tmp_path / "mm"


def compositions(total: int) -> st.SearchStrategy[str]:
    """All ways to write `total` as a sum of stages: 4, 1,3, 2,1,1, ..."""
    cuts = itertools.chain.from_iterable(
        itertools.combinations(range(1, total), count) for count in range(total)
    )
    sums = []
    for cut in cuts:
        edges = [0, *cut, total]
        sums.append(",".join(str(b - a) for a, b in itertools.pairwise(edges)))
    return st.sampled_from(sums)


class TestRoundTrip:
    @settings(max_examples=8, deadline=None)
    @given(
        config=st.sampled_from([SMALL, SMALL_TI2V]),
        first=st.sampled_from([1, 2, 4, 8]),
        second=st.sampled_from([1, 2, 4, 8]),
        first_layers=compositions(4),
        second_layers=compositions(4),
        seed=st.integers(0, 2**31),
    )
    def test_there_across_and_back(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        config: TransformerConfig,
        first: int,
        second: int,
        first_layers: str,
        second_layers: str,
        seed: int,
    ) -> None:
        root = tmp_path_factory.mktemp("round")
        weights = write_official(root / "hf", config, seed)
        hf_to_mm(root / "hf", root / "mm", num_ranks=first, layers=first_layers).run()
        resplit(root / "mm", root / "mm2", num_ranks=second, layers=second_layers).run()
        mm_to_hf(root / "mm2", root / "back").run()
        assert bits(read_official(root / "back")) == bits(weights)
        assert mm_to_hf(root / "mm2", root / "other").config == config

        # Straight to the second split is the same as over the first one.
        hf_to_mm(root / "hf", root / "mm3", num_ranks=second, layers=second_layers).run()
        for path in (root / "mm3" / "release").iterdir():
            assert bits(load_rank(path)) == bits(load_rank(root / "mm2" / "release" / path.name))

    def test_turbo_is_the_same_layout(self, tiny_checkpoint: Path, tmp_path: Path) -> None:
        """The distilled model differs in its weights only; here the folder's name says turbo."""
        turbo = tmp_path / "stepvideo-t2v-turbo"
        turbo.symlink_to(tiny_checkpoint)
        hf_to_mm(turbo, tmp_path / "mm", num_ranks=3, layers="2,1").run()
        mm_to_hf(tmp_path / "mm", tmp_path / "back").run()
        assert bits(read_official(tmp_path / "back")) == bits(read_official(turbo))
        config = (tmp_path / "back" / "transformer" / "config.json").read_text()
        assert json.loads(config) == json.loads((turbo / "transformer" / "config.json").read_text())

    def test_several_shards(self, official: Path, training: Path, tmp_path: Path) -> None:
        mm_to_hf(training, tmp_path / "back", max_shard_bytes=100_000).run()
        folder = tmp_path / "back" / "transformer"
        index = json.loads((folder / "diffusion_pytorch_model.safetensors.index.json").read_text())
        shards = sorted(folder.glob("diffusion_pytorch_model-*-of-*.safetensors"))
        assert len(shards) > 2
        assert shards[0].name.startswith("diffusion_pytorch_model-00001-of-0000")
        for shard in shards:
            names = load_file(shard)
            assert sum(t.nbytes for t in names.values()) <= 100_000
            assert {key for key, name in index["weight_map"].items() if name == shard.name} == set(
                names
            )
        weights = read_official(official)
        assert index["metadata"]["total_size"] == sum(t.nbytes for t in weights.values())
        assert bits(read_official(tmp_path / "back")) == bits(weights)
        # It is a checkpoint again: the other way reads the shards.
        hf_to_mm(tmp_path / "back", tmp_path / "again").run()

    def test_another_dtype(self, official: Path, tmp_path: Path) -> None:
        hf_to_mm(official, tmp_path / "mm", num_ranks=2, dtype=torch.float32).run()
        rank = load_rank(tmp_path / "mm" / "release" / "mp_rank_00")
        assert {tensor.dtype for tensor in rank.values()} == {torch.float32}
        mm_to_hf(tmp_path / "mm", tmp_path / "back", dtype=torch.bfloat16).run()
        one, other = read_official(official), read_official(tmp_path / "back")
        assert all(torch.equal(one[key].nan_to_num(), other[key].nan_to_num()) for key in one)


class TestLayout:
    def test_rows_are_what_training_computes_with(self, official: Path, tmp_path: Path) -> None:
        """Each rank's q, k and v rows, found by hand in the official head-by-head order."""
        weights = read_official(official)
        hf_to_mm(official, tmp_path / "mm", num_ranks=4).run()
        head_dim, heads = SMALL.attention_head_dim, HEADS // 4
        wqkv = weights["transformer_blocks.2.attn1.wqkv.weight"]
        wkv = weights["transformer_blocks.2.attn2.wkv.weight"]
        for rank in range(4):
            folder = tmp_path / "mm" / "release" / f"mp_rank_{rank:02d}"
            held = load_rank(folder)
            block = "transformer_blocks.2."
            fused = {"attn1.proj_qkv": (wqkv, 3), "attn2.proj_kv": (wkv, 2)}
            for name, (whole, count) in fused.items():
                rows = [
                    whole[(head * count + part) * head_dim + row]
                    for part in range(count)
                    for head in range(rank * heads, (rank + 1) * heads)
                    for row in range(head_dim)
                ]
                wanted = torch.stack(rows)
                assert bits({"w": held[f"{block}{name}.weight"]}) == bits({"w": wanted})
            columns = slice(rank * heads * head_dim, (rank + 1) * heads * head_dim)
            for name, key in (
                ("attn1.proj_out", "attn1.wo"),
                ("attn2.proj_out", "attn2.wo"),
            ):
                wanted = weights[f"{block}{key}.weight"][:, columns]
                assert bits({"w": held[f"{block}{name}.weight"]}) == bits({"w": wanted})
            assert bits({"w": held[f"{block}attn2.proj_q.weight"]}) == bits(
                {"w": weights[f"{block}attn2.wq.weight"][columns]}
            )
            hidden = slice(rank * 64, (rank + 1) * 64)  # 4 * 64 hidden units on 4 ranks
            assert held[f"{block}ff.net.2.weight"].shape == (64, 64)
            assert bits({"w": held[f"{block}ff.net.2.weight"]}) == bits(
                {"w": weights[f"{block}ff.net.2.weight"][:, hidden]}
            )
            sixth = slice(rank * 96, (rank + 1) * 96)
            assert bits({"b": held["adaln_single.linear.bias"]}) == bits(
                {"b": weights["adaln_single.linear.bias"][sixth]}
            )
            assert held["proj_out.weight"].shape == weights["proj_out.weight"].shape

    def test_stages(self, training: Path) -> None:
        assert (training / "latest_checkpointed_iteration.txt").read_text() == "release"
        release = training / "release"
        names = sorted(path.name for path in release.iterdir())
        assert names == [f"mp_rank_{rank:02d}_{stage:03d}" for rank in (0, 1) for stage in (0, 1)]
        first, last = (load_rank(release / f"mp_rank_01_{stage:03d}") for stage in (0, 1))
        # The public converter forgets this one.
        assert MOTION_KEY in first
        assert {"pos_embed.proj.weight", "clip_projection.weight"} <= set(first)
        assert {"scale_shift_table", "proj_out.bias"} <= set(last)
        assert set(first) & {"scale_shift_table", "proj_out.bias"} == set()
        layers = {int(key.split(".")[1]) for key in last if key.startswith("transformer_blocks.")}
        assert layers == {0, 1, 2}

    def test_the_public_converter_without_stages_writes_no_number(
        self, official: Path, tmp_path: Path
    ) -> None:
        hf_to_mm(official, tmp_path / "mm", num_ranks=2).run()
        release = tmp_path / "mm" / "release"
        assert sorted(path.name for path in release.iterdir()) == ["mp_rank_00", "mp_rank_01"]

    @pytest.mark.parametrize("model", [STEP_VIDEO_T2V, STEP_VIDEO_TI2V], ids=["t2v", "ti2v"])
    @pytest.mark.parametrize("num_ranks", [1, 2, 4, 8])
    @pytest.mark.parametrize("layers", ["48", "24,24", "11,13,12,12"])
    def test_every_key_of_the_official_models(
        self, model: Any, num_ranks: int, layers: str
    ) -> None:
        """The inventory of the 30B models, whose hash other tools know, maps there and back."""
        config = model.transformer
        shapes = shapes_of(config)
        split = ParallelSplit.parse(num_ranks, layers, config)
        target = MegatronTarget(Path("mm"), config, split)
        entries = {key: Entry(shape=s, dtype=torch.bfloat16) for key, s in shapes.items()}
        listing = target.listing(entries)
        assert len(listing) == num_ranks * split.num_stages
        back: dict[str, tuple[int, ...]] = {}
        for stage, first in enumerate(split.first_layers):
            held = listing[split.file(num_ranks - 1, stage)]
            assert held == listing[split.file(0, stage)]
            for name, entry in held.items():
                key = official_key(name, first)
                assert key not in back
                back[key] = whole_shape(entry.shape, rule_of(key), num_ranks)
        assert back == shapes
        assert config_of(back, Path("mm")) == config

    def test_a_whole_model_takes_this_much(self) -> None:
        """What ranks share is stored once, what they copy once for each."""
        config = STEP_VIDEO_T2V.transformer
        entries = {
            key: Entry(shape=shape, dtype=torch.bfloat16)
            for key, shape in shapes_of(config).items()
        }
        sizes = []
        for num_ranks in (1, 8):
            split = ParallelSplit.parse(num_ranks, None, config)
            listing = MegatronTarget(Path("mm"), config, split).listing(entries)
            sizes.append(sum(e.num_bytes for file in listing.values() for e in file.values()))
        assert sizes[0] == 2 * 29_342_478_400
        shared = sum(e.num_bytes for key, e in entries.items() if rule_of(key).axis is not None)
        assert sizes[1] == shared + 8 * (sizes[0] - shared)


@settings(max_examples=50, deadline=None)
@given(
    key=st.sampled_from(sorted(shapes_of(replace(SMALL_TI2V, num_layers=1)))),
    num_ranks=st.sampled_from([1, 2, 4, 8]),
    layer=st.integers(0, 60),
    first=st.integers(0, 60),
)
def test_rules_invert(key: str, num_ranks: int, layer: int, first: int) -> None:
    shape = shapes_of(replace(SMALL_TI2V, num_layers=1))[key]
    key = key.replace("transformer_blocks.0.", f"transformer_blocks.{layer + first}.")
    assert official_key(training_key(key, first), first) == key
    rule = rule_of(key)
    tensor = torch.arange(torch.Size(shape).numel()).reshape(shape)
    parts = divide(tensor, rule, HEADS, num_ranks)
    assert {tuple(part.shape) for part in parts} == {piece_shape(shape, rule, num_ranks)}
    assert torch.equal(join(parts, rule, HEADS), tensor)


def _in_training(folder: Path) -> Path:
    """Turn what the converter wrote into what training leaves: another folder, more inside."""
    iteration = folder / "iter_0005000"
    (folder / "release").rename(iteration)
    (folder / "latest_checkpointed_iteration.txt").write_text("5000\n")
    return iteration


def _resave(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


class TestTrainingCheckpoints:
    def test_an_iteration_with_optimizer_and_records(
        self, official: Path, training: Path, tmp_path: Path
    ) -> None:
        """Views of one flat buffer, arguments, the state of numpy's generator, extra state."""
        iteration = _in_training(training)

        def add(content: dict[str, Any]) -> None:
            flat = torch.cat([t.reshape(-1) for t in content["model"].values()])
            place = 0
            for key, tensor in content["model"].items():
                content["model"][key] = flat[place : place + tensor.numel()].view(tensor.shape)
                place += tensor.numel()
            content["model"]["transformer_blocks.0.attn1._extra_state"] = io.BytesIO(b"fp8")
            content["args"] = argparse.Namespace(
                dtype=torch.bfloat16, path=Path("data"), activation=torch.nn.functional.gelu
            )
            content["iteration"] = 5000
            content["optimizer"] = {"state": {0: {"exp_avg": torch.randn(100)}}}
            content["rng_state"] = [{"np_rng_state": np.random.RandomState(1).get_state()}]

        for file in iteration.rglob("*.pt"):
            _resave(file, add)
        for source in (training, iteration):
            target = tmp_path / f"from-{source.name}"
            mm_to_hf(source, target).run()
            assert bits(read_official(target)) == bits(read_official(official))

    def test_the_untrained_embedders_of_the_training_code_are_left_out(
        self, official: Path, training: Path, tmp_path: Path
    ) -> None:
        name = "adaln_single.emb.nframe_embedder.linear_1.weight"
        for file in training.rglob("mp_rank_*_000/*.pt"):
            _resave(file, lambda content: content["model"].update({name: torch.zeros(64, 256)}))
        job = mm_to_hf(training, tmp_path / "back")
        assert "1 tensors are left out, such as adaln_single.emb.nframe_embedder" in "".join(
            job.notes
        )
        job.run()
        assert bits(read_official(tmp_path / "back")) == bits(read_official(official))

    def test_what_the_public_converter_forgot(self, training: Path, tmp_path: Path) -> None:
        def forget(content: dict[str, Any]) -> None:
            for key in [key for key in content["model"] if "motion_score" in key]:
                del content["model"][key]

        for file in training.rglob("mp_rank_*_000/*.pt"):
            _resave(file, forget)
        with pytest.raises(CheckpointError, match="loses the motion score's embedder") as caught:
            mm_to_hf(training, tmp_path / "back")
        assert "motion_score_embedder.linear_1.weight" in str(caught.value)

    def test_ranks_that_differ_in_what_they_share(self, training: Path, tmp_path: Path) -> None:
        file = training / "release" / "mp_rank_01_001" / "model_optim_rng.pt"
        _resave(file, lambda content: content["model"]["proj_out.bias"].add_(1))
        with pytest.raises(CheckpointError, match=r"proj_out\.bias should be the same on all"):
            mm_to_hf(training, tmp_path / "back").run()
        assert list((tmp_path / "back").iterdir()) == []

    def test_a_rank_that_is_missing(self, training: Path, tmp_path: Path) -> None:
        (training / "release" / "mp_rank_01_000").rename(tmp_path / "elsewhere")
        with pytest.raises(CheckpointError, match="2 ranks and 2 stages, but 1 of them are mis"):
            mm_to_hf(training, tmp_path / "back")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m.pop("proj_out.bias"), "another rank of that stage lacks it"),
            (
                lambda m: m.update({"proj_out.bias": torch.zeros(5)}),
                r"torch.bfloat16 \[4\] in .* but torch.float32 \[5\]",
            ),
        ],
    )
    def test_ranks_of_different_models(
        self, training: Path, tmp_path: Path, change: Any, message: str
    ) -> None:
        file = training / "release" / "mp_rank_01_001" / "model_optim_rng.pt"
        _resave(file, lambda content: change(content["model"]))
        with pytest.raises(CheckpointError, match=message):
            mm_to_hf(training, tmp_path / "back")

    def test_a_tensor_too_much_or_too_small(self, training: Path, tmp_path: Path) -> None:
        for file in training.rglob("mp_rank_*_001/*.pt"):
            _resave(file, lambda c: c["model"].update({"lora.weight": torch.zeros(2)}))
        with pytest.raises(CheckpointError, match=r"lora\.weight \(in .*\) unexpected"):
            mm_to_hf(training, tmp_path / "back")

    def test_virtual_stages(self, training: Path, tmp_path: Path) -> None:
        for file in training.rglob("*.pt"):
            _resave(file, lambda content: content.update({"model0": content.pop("model")}))
        with pytest.raises(CheckpointError, match="several virtual pipeline stages"):
            mm_to_hf(training, tmp_path / "back")

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("5000", "names the iteration 5000, but .*iter_0005000 has no mp_rank"),
            ("../../etc", "which is neither a number nor 'release'"),
            (None, "has neither mp_rank_.* folders nor latest_checkpointed_iteration.txt"),
        ],
    )
    def test_the_pointer_to_the_iteration(
        self, tmp_path: Path, text: str | None, message: str
    ) -> None:
        source = tmp_path / "mm"
        source.mkdir()
        if text is not None:
            (source / "latest_checkpointed_iteration.txt").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            mm_to_hf(source, tmp_path / "back")


class _Dangerous:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class TestUnsafeFiles:
    @pytest.mark.parametrize("new_format", [True, False], ids=["zip", "legacy"])
    def test_a_file_that_would_run_code(
        self, training: Path, tmp_path: Path, new_format: bool
    ) -> None:
        marker = tmp_path / "ran"
        for file in training.rglob("*.pt"):
            content = torch.load(file, weights_only=True)
            content["args"] = _Dangerous(marker)
            torch.save(content, file, _use_new_zipfile_serialization=new_format)
        message = r"reading it would call \w+\.system" if new_format else "would run code"
        with pytest.raises(CheckpointError, match=message):
            mm_to_hf(training, tmp_path / "back")
        assert not marker.exists()

    def test_a_known_name_is_not_called_either(self, training: Path, tmp_path: Path) -> None:
        """numpy has functions that write files; they must not run because numpy is known."""
        marker = tmp_path / "ran.npy"

        class Saves:
            def __reduce__(self) -> tuple[Any, ...]:
                return np.save, (str(marker), [1])

        for file in training.rglob("*.pt"):
            content = torch.load(file, weights_only=True)
            content["args"] = Saves()
            torch.save(content, file)
        mm_to_hf(training, tmp_path / "back").run()
        assert not marker.exists()

    @pytest.mark.parametrize(
        "content", [b"", b"PK\x03\x04 no archive", pickle.dumps([1], protocol=2)]
    )
    def test_what_is_no_torch_file(self, training: Path, tmp_path: Path, content: bytes) -> None:
        for file in training.rglob("*.pt"):
            file.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"model_optim_rng\.pt"):
            mm_to_hf(training, tmp_path / "back")

    def test_a_truncated_file(self, training: Path, tmp_path: Path) -> None:
        file = training / "release" / "mp_rank_00_000" / "model_optim_rng.pt"
        file.write_bytes(file.read_bytes()[:-2000])
        with pytest.raises(CheckpointError, match=r"not a readable torch file|is truncated"):
            mm_to_hf(training, tmp_path / "back")


class TestOutput:
    def test_nothing_is_replaced_unasked(
        self, official: Path, training: Path, tmp_path: Path
    ) -> None:
        before = {p: p.read_bytes() for p in training.rglob("*") if p.is_file()}
        with pytest.raises(OutputError, match="is there already; name another output, or repl"):
            hf_to_mm(official, training).run()
        assert {p: p.read_bytes() for p in training.rglob("*") if p.is_file()} == before
        hf_to_mm(official, training, num_ranks=4).run(force=True)
        assert sorted(p.name for p in (training / "release").iterdir()) == [
            f"mp_rank_{rank:02d}" for rank in range(4)
        ]
        assert sorted(p.name for p in training.iterdir()) == [
            "latest_checkpointed_iteration.txt",
            "release",
        ]

    def test_a_training_folder_keeps_its_pointer(self, official: Path, training: Path) -> None:
        """Writing a release beside iterations would change what training goes on from."""
        _in_training(training)
        with pytest.raises(
            OutputError, match=r"latest_checkpointed_iteration\.txt is there already"
        ):
            hf_to_mm(official, training).run()
        assert (training / "latest_checkpointed_iteration.txt").read_text() == "5000\n"

    def test_the_rest_of_a_checkpoint_stays(self, training: Path, tmp_path: Path) -> None:
        (tmp_path / "model" / "vae").mkdir(parents=True)
        mm_to_hf(training, tmp_path / "model").run()
        mm_to_hf(training, tmp_path / "model").run(force=True)
        assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["transformer", "vae"]

    def test_never_over_the_source(self, official: Path, training: Path) -> None:
        with pytest.raises(OutputError, match="lie in one another"):
            resplit(training, training)
        with pytest.raises(OutputError, match="lie in one another"):
            hf_to_mm(official, official / "transformer")

    def test_a_failure_leaves_nothing(self, training: Path, tmp_path: Path) -> None:
        target = tmp_path / "back"
        mm_to_hf(training, target).run()
        before = bits(read_official(target))
        file = training / "release" / "mp_rank_01_001" / "model_optim_rng.pt"
        _resave(file, lambda content: content["model"]["scale_shift_table"].add_(1))
        with pytest.raises(CheckpointError):
            mm_to_hf(training, target).run(force=True)
        assert bits(read_official(target)) == before
        assert [path.name for path in target.iterdir()] == ["transformer"]

    def test_a_full_disk_is_seen_before(self, official: Path, tmp_path: Path) -> None:
        job = hf_to_mm(official, tmp_path / "mm")
        huge = replace(job, source=_Huge(job.source))
        with pytest.raises(OutputError, match=r"will need [\d.]+ GiB, but its disk has"):
            huge.run()
        assert not (tmp_path / "mm").exists()

    @pytest.mark.parametrize(
        ("num_ranks", "layers", "message"),
        [
            (3, None, "--tp 3 does not divide the 8 attention heads .* use one of 1, 2, 4, 8"),
            (16, None, "--tp 16"),
            (1, "2,1", "--pp '2,1' does not say how the 4 blocks are divided: .* --pp 2,2"),
            (1, "4,0", "--pp '4,0'"),
            (1, "two", "--pp 'two'"),
            (1, "", "--pp ''"),
        ],
    )
    def test_impossible_splits(
        self, official: Path, tmp_path: Path, num_ranks: int, layers: str | None, message: str
    ) -> None:
        with pytest.raises(InvalidRequest, match=message):
            hf_to_mm(official, tmp_path / "mm", num_ranks=num_ranks, layers=layers)


class _Huge:
    """The same source, with a tensor that no disk holds."""

    def __init__(self, source: Any) -> None:
        info = source.infos[MOTION_KEY]
        self.infos = {**source.infos, MOTION_KEY: replace(info, shape=(2**50, 2))}


@pytest.fixture
def wide(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A transformer of half a gigabyte, zeros in sparse files, and its size."""
    config = replace(SMALL, attention_head_dim=128, num_layers=12)
    entries = {
        key: Entry(shape=shape, dtype=torch.bfloat16) for key, shape in shapes_of(config).items()
    }
    folder = tmp_path / "wide" / "transformer"
    write_json(folder / "config.json", transformer_config_json(config))
    path = folder / "diffusion_pytorch_model.safetensors"
    stream = SafetensorsStream(path, entries)
    stream._file.close()
    yield tmp_path / "wide", path.stat().st_size


def test_memory_is_bounded_by_a_tensor_not_by_the_model(
    wide: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "MAX_MAPPED_BYTES", 2**25)
    source, size = wide
    assert size > 350 * 2**20
    meter = PeakMeter(torch.device("cpu"))
    if not meter._has_mark:
        pytest.skip("only Linux tells the peak of a process's memory")
    before = meter.host_peak()
    hf_to_mm(source, tmp_path / "mm", num_ranks=2, layers="6,6").run()
    mm_to_hf(tmp_path / "mm", tmp_path / "back").run()
    largest = 6 * 1024 * 1024 * 2
    assert meter.host_peak() - before < 2**25 + 6 * largest < size // 2
