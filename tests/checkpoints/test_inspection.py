"""Inspection: everything that is wrong is said at once, and nothing makes it fail."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepvideo_core.checkpoints.configs import ComponentConfig, write_config_files
from stepvideo_core.checkpoints.inspection import (
    CheckpointReport,
    ComponentReport,
    inspect_checkpoint,
)
from stepvideo_core.checkpoints.inventory import model_shapes
from stepvideo_core.checkpoints.layout import COMPONENTS, CheckpointLayout, ComponentName
from stepvideo_core.checkpoints.load import file_key
from stepvideo_core.config import STEP_VIDEO_T2V, TINY
from stepvideo_core.errors import CheckpointError

EditJson = Callable[..., None]
WriteShards = Callable[..., list[Path]]

TRANSFORMER = Path("transformer", "diffusion_pytorch_model.safetensors")
VAE = Path("vae", "vae_v2.safetensors")
STEP_LLM = Path("step_llm", "model.safetensors")
CLIP = Path("hunyuan_clip", "clip_text_encoder", "pytorch_model.bin")


def part(report: CheckpointReport, name: ComponentName) -> ComponentReport:
    """One component of a report."""
    (found,) = (component for component in report.components if component.name == name)
    return found


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Rewrite a safetensors file after `change` has worked on its tensors."""
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)


class TestSound:
    def test_tiny(self, tiny_checkpoint: Path) -> None:
        report = inspect_checkpoint(tiny_checkpoint)
        assert report.ok
        assert report.problems == []
        assert (report.task, report.turbo, report.trained) == ("text-to-video", False, False)
        assert report.preset == "tiny"
        assert report.sampling == TINY.sampling
        assert [component.name for component in report.components] == list(COMPONENTS)
        transformer = part(report, "transformer")
        assert transformer.config == TINY.transformer
        assert transformer.num_tensors == 65
        assert transformer.num_parameters == 3_333_128
        assert transformer.num_bytes == 2 * 3_333_128
        assert transformer.dtypes == {"bfloat16": 65}
        (file,) = transformer.files
        assert file.path == TRANSFORMER.as_posix()
        assert file.num_bytes == (tiny_checkpoint / TRANSFORMER).stat().st_size
        assert part(report, "clip").dtypes == {"float32": 37}
        assert [tokenizer.vocab_size for tokenizer in report.tokenizers] == [1024, 455]

    def test_json_is_plain_and_complete(self, tiny_checkpoint: Path) -> None:
        report = inspect_checkpoint(tiny_checkpoint)
        values = json.loads(json.dumps(report.as_json()))
        assert values["ok"] is True
        assert values["root"] == str(tiny_checkpoint)
        assert values["sampling"]["num_frames"] == 17
        vae = {entry["name"]: entry for entry in values["components"]}["vae"]
        assert vae["config"]["z_channels"] == 8
        assert vae["comparison"] == {
            "matched": 128,
            "missing": [],
            "extra": [],
            "unused": [],
            "wrong_shape": [],
        }

    @pytest.mark.parametrize("name", ["pipeline_t2v", "pipeline_ti2v"])
    def test_golden(self, golden: Callable[[str], Path], name: str) -> None:
        report = inspect_checkpoint(golden(name))
        assert report.problems == []
        assert report.trained
        expected = "image-to-video" if name == "pipeline_ti2v" else "text-to-video"
        assert report.task == expected

    def test_turbo_by_name(self, tiny_copy: Path) -> None:
        (tiny_copy / "stepvideo.json").unlink()
        renamed = tiny_copy.rename(tiny_copy.parent / "stepvideo-t2v-turbo")
        report = inspect_checkpoint(renamed)
        assert report.turbo
        assert report.sampling is not None
        assert report.sampling.num_steps == 15

    def test_shards(self, tiny_copy: Path, write_shards: WriteShards) -> None:
        tensors = load_file(tiny_copy / TRANSFORMER)
        (tiny_copy / TRANSFORMER).unlink()
        keys = sorted(tensors)
        shards = [{key: tensors[key].clone() for key in keys[start::3]} for start in range(3)]
        write_shards(tiny_copy / "transformer", TRANSFORMER.stem, shards)
        report = inspect_checkpoint(tiny_copy)
        assert report.ok
        assert len(part(report, "transformer").files) == 3
        assert part(report, "transformer").num_tensors == 65

    def test_unused_heads_are_no_problem(self, tiny_copy: Path) -> None:
        state = torch.load(tiny_copy / CLIP, weights_only=True)
        state["bert.pooler.dense.bias"] = torch.zeros(64)
        torch.save(state, tiny_copy / CLIP)
        clip = part(inspect_checkpoint(tiny_copy), "clip")
        assert clip.problems == ()
        assert clip.comparison is not None
        assert clip.comparison.unused == ("bert.pooler.dense.bias",)


class TestFaults:
    def test_no_checkpoint_raises(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="holds no Step-Video checkpoint"):
            inspect_checkpoint(tmp_path)

    def test_all_faults_at_once(self, tiny_copy: Path, edit_json: EditJson) -> None:
        def spoil(tensors: dict[str, Tensor]) -> None:
            tensors["decoder.conv_out.weight"] = tensors["decoder.conv_out.weight"][:2].clone()
            tensors["decoder.extra"] = torch.zeros(1)
            del tensors["encoder.norm_out.bias"]

        edit_tensors(tiny_copy / VAE, spoil)
        content = (tiny_copy / TRANSFORMER).read_bytes()
        (tiny_copy / TRANSFORMER).write_bytes(content[:-1])
        (tiny_copy / CLIP).unlink()
        (tiny_copy / "step_llm" / "config.json").write_text("{")
        (tiny_copy / "step_llm" / "step1_chat_tokenizer.model").write_bytes(b"no model")
        (tiny_copy / "hunyuan_clip" / "tokenizer" / "vocab.txt").unlink()
        edit_json(tiny_copy / "stepvideo.json", sampling={"frames": 1})
        edit_json(tiny_copy / "model_index.json", _class_name="Other")

        report = inspect_checkpoint(tiny_copy)
        assert not report.ok
        said = "\n".join(report.problems)
        for expected in (
            "transformer: ",
            "diffusion_pytorch_model.safetensors is not a complete safetensors file",
            "vae: encoder.norm_out.bias missing",
            "vae: decoder.extra (in vae_v2.safetensors) unexpected",
            "decoder.conv_out.weight (in vae_v2.safetensors) is [2, 64, 3, 3, 3] but must be",
            "clip: ",
            "pytorch_model.bin is missing",
            "step_llm: ",
            "at line 1, column 2",
            "Step-LLM tokenizer: ",
            "step1_chat_tokenizer.model is not a SentencePiece model",
            "Hunyuan-CLIP tokenizer: ",
            "vocab.txt is missing",
            "unknown setting 'frames'",
            "describes a 'Other'",
        ):
            assert expected in said
        # What can still be told is told.
        assert report.task == "text-to-video"
        assert part(report, "step_llm").num_tensors == 13
        assert part(report, "step_llm").comparison is None
        assert part(report, "transformer").config == TINY.transformer
        assert json.dumps(report.as_json())

    def test_a_good_shard_is_counted_beside_a_broken_one(
        self, tiny_copy: Path, write_shards: WriteShards
    ) -> None:
        tensors = {key: tensor.clone() for key, tensor in load_file(tiny_copy / STEP_LLM).items()}
        (tiny_copy / STEP_LLM).unlink()
        keys = sorted(tensors)
        shards = [{key: tensors[key] for key in keys[start::4]} for start in range(4)]
        paths = write_shards(tiny_copy / "step_llm", "model", shards)
        paths[0].write_bytes(paths[0].read_bytes()[:-1])
        paths[1].unlink()
        save_file({**shards[2], keys[3]: tensors[keys[3]]}, paths[2])

        step_llm = part(inspect_checkpoint(tiny_copy), "step_llm")
        said = "\n".join(step_llm.problems)
        assert "1 of 4 shards are missing" in said
        assert f"{paths[0]} is not a complete safetensors file" in said
        assert f"such as {keys[3]!r} in {paths[2].name}" in said
        lost = len(shards[0]) + len(shards[1])
        assert f"and {lost - 3} more missing" in said
        assert step_llm.num_tensors == len(keys) - lost
        assert [file.path for file in step_llm.files] == [
            path.relative_to(tiny_copy).as_posix() for path in (paths[0], paths[2], paths[3])
        ]

    def test_models_that_do_not_fit_together(self, tiny_copy: Path, edit_json: EditJson) -> None:
        edit_json(tiny_copy / "transformer" / "config.json", caption_channels=[64, 32])
        report = inspect_checkpoint(tiny_copy)
        assert any("Hunyuan-CLIP gives text states of width 64" in p for p in report.problems)
        # The weights do not fit that config either.
        assert part(report, "transformer").problems

    def test_sizes_that_cannot_be_built(self, tiny_copy: Path, edit_json: EditJson) -> None:
        folder = tiny_copy / "hunyuan_clip" / "clip_text_encoder"
        edit_json(folder / "config.json", hidden_act="no such function")
        clip = part(inspect_checkpoint(tiny_copy), "clip")
        assert len(clip.problems) == 1
        assert "no network can have the sizes" in clip.problems[0]
        assert clip.num_tensors == 37

    def test_tokenizer_larger_than_the_embedding(
        self, tiny_copy: Path, edit_json: EditJson
    ) -> None:
        edit_json(tiny_copy / "step_llm" / "config.json", padded_vocab_size=1000)
        report = inspect_checkpoint(tiny_copy)
        (problem,) = report.tokenizers[0].problems
        assert "has 1024 entries" in problem
        assert "embeds only 1000" in problem

    @pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise", "folder"])
    def test_any_damaged_file_becomes_a_problem(
        self, tiny_checkpoint: Path, tmp_path: Path, damage: str
    ) -> None:
        optional = {"model_index.json", "scheduler_config.json", "stepvideo.json"}
        # transformers has the same values as defaults.
        optional |= {"tokenizer_config.json", "special_tokens_map.json"}
        generator = torch.Generator().manual_seed(0)
        names = [p.relative_to(tiny_checkpoint) for p in tiny_checkpoint.rglob("*") if p.is_file()]
        for name in names:
            root = tmp_path / "model"
            shutil.copytree(tiny_checkpoint, root)
            path = root / name
            content = path.read_bytes()
            path.unlink()
            if damage == "folder":
                path.mkdir()
            elif damage == "noise":
                noise = torch.randint(0, 256, (len(content),), generator=generator)
                path.write_bytes(bytes(noise.tolist()))
            elif damage != "missing":
                path.write_bytes(content[: 0 if damage == "empty" else len(content) // 2])
            report = inspect_checkpoint(root)
            assert name.name in optional or not report.ok, name
            assert json.dumps(report.as_json())
            shutil.rmtree(root)


def write_sparse(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A bf16 safetensors file of full length whose data are a hole in the file."""
    header: dict[str, Any] = {}
    end = 0
    for key, shape in shapes.items():
        start, end = end, end + 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(file.tell() + end)


def test_the_published_model(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """A whole 30B checkpoint, its weights being holes: 100 GB to look at, none to hold."""
    root = tmp_path / "stepvideo-t2v"
    write_config_files(root, STEP_VIDEO_T2V)
    (root / "vae").mkdir()
    parts: list[tuple[ComponentName, ComponentConfig, Path]] = [
        ("transformer", STEP_VIDEO_T2V.transformer, TRANSFORMER),
        ("step_llm", STEP_VIDEO_T2V.step_llm, STEP_LLM),
        ("vae", STEP_VIDEO_T2V.vae, VAE),
    ]
    for name, config, path in parts:
        shapes = {file_key(name, key): shape for key, shape in model_shapes(config).items()}
        if name == "vae":
            write_sparse(root / path, shapes)
            continue
        keys, weight_map = list(shapes), {}
        # Shards of about 2 GB, so that a small machine grants the map.
        for number in range(30):
            shard = f"{path.stem}-{number + 1:05}-of-00030.safetensors"
            write_sparse((root / path).with_name(shard), {k: shapes[k] for k in keys[number::30]})
            weight_map.update(dict.fromkeys(keys[number::30], shard))
        index = (root / path).with_name(f"{path.name}.index.json")
        index.write_text(json.dumps({"weight_map": weight_map}))
    clip = model_shapes(STEP_VIDEO_T2V.clip)
    # Expanded from one element, of which alone torch saves the memory.
    torch.save({key: torch.zeros(1).expand(shape) for key, shape in clip.items()}, root / CLIP)
    layout = CheckpointLayout(root)
    shutil.copy(CheckpointLayout(tiny_checkpoint).tokenizer_path, layout.tokenizer_path)
    shutil.copytree(
        CheckpointLayout(tiny_checkpoint).clip_tokenizer_folder, layout.clip_tokenizer_folder
    )

    before = psutil.Process().memory_info().rss
    report = inspect_checkpoint(root)
    assert psutil.Process().memory_info().rss - before < 2**28
    # The tokenizers are the tiny ones, which is noticed; nothing else is.
    assert [len(tokenizer.problems) for tokenizer in report.tokenizers] == [1, 1]
    assert all("download it again" in problem for problem in report.problems)
    assert len(report.problems) == 2
    assert report.sampling == STEP_VIDEO_T2V.sampling
    assert part(report, "transformer").num_parameters == 29_342_478_400
    assert sum(file.num_bytes for file in part(report, "transformer").files) > 58.6e9
    assert part(report, "step_llm").num_parameters == 19_579_600_896
    assert part(report, "vae").num_tensors == 262
    assert part(report, "clip").num_parameters == 350_986_240
