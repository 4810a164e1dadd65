"""The whole pipeline against the official one, and what it promises about memory and repetition."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stepvideo_core import StepVideoPipeline
from stepvideo_core.errors import InvalidRequest, NotEnoughMemory, NumericalFailure
from stepvideo_core.progress import StageLog, StageReport
from stepvideo_core.text import _attended
from stepvideo_core.video import to_uint8


def relative(result: Tensor, truth: Tensor) -> float:
    return float((result - truth).abs().max() / truth.abs().max())


@pytest.fixture(scope="module")
def official(golden: Callable[[str], Path]) -> tuple[StepVideoPipeline, dict[str, Tensor], Any]:
    folder = golden("pipeline_t2v")
    pipe = StepVideoPipeline.from_pretrained(folder, dtype=torch.float32, device="cpu")
    data = load_file(folder / "golden.safetensors")
    return pipe, data, json.loads((folder / "golden.json").read_text())


def test_end_to_end(official: tuple[StepVideoPipeline, dict[str, Tensor], Any]) -> None:
    pipe, data, call = official
    result = pipe(
        call["prompt"],
        steps=call["num_inference_steps"],
        cfg_scale=call["guidance_scale"],
        time_shift=call["time_shift"],
        latents=data["init_latents"],
    )
    assert relative(result.latents, data["final_latents"]) < 1e-4
    difference = (result.frames.int() - data["video_u8"].int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() <= 0.001
    assert result.frames.shape == (34, 64, 96, 3)
    assert result.notes == []
    assert result.record["settings"]["positive_suffix"] == call["pos_magic"]
    assert result.record["settings"]["negative_prompt"] == call["neg_magic"]


def test_text_embeddings(official: tuple[StepVideoPipeline, dict[str, Tensor], Any]) -> None:
    pipe, data, call = official
    settings, _ = pipe.settings(call["prompt"])
    embeddings = pipe.encode_text(settings, StageLog(pipe.device))
    lengths = data["prompt_attention_mask"].sum(dim=1).tolist()
    for row, embedding in enumerate(embeddings):
        assert embedding.clip_1PC.shape[1] + embedding.llm_1LC.shape[1] == lengths[row]
        count = embedding.llm_1LC.shape[1]
        states = data["prompt_embeds"][row : row + 1, :count]
        assert relative(embedding.llm_1LC, states) < 1e-5
        assert relative(embedding.clip_1PC, data["clip_embedding"][row : row + 1]) < 1e-5


def test_decoding_alone(official: tuple[StepVideoPipeline, dict[str, Tensor], Any]) -> None:
    pipe, data, _ = official
    pieces = list(pipe.decode_frames(data["final_latents"], StageLog(pipe.device)))
    assert [piece.shape[0] for piece in pieces] == [17, 17]
    difference = (torch.cat(pieces).int() - data["video_u8"].int()).abs()
    assert difference.max() <= 1
    # The golden frames follow from the golden floats by the official truncation.
    frames = to_uint8(data["video"][0])
    assert torch.equal(frames, data["video_u8"])


class Watcher:
    """Records, at the start and the end of every stage, which models have their weights."""

    def __init__(self, pipe: StepVideoPipeline) -> None:
        self.pipe = pipe
        self.seen: list[tuple[str, tuple[str, ...]]] = []

    def _loaded(self) -> tuple[str, ...]:
        return tuple(
            name
            for name, module in self.pipe.modules.items()
            if not next(module.parameters()).is_meta
        )

    def begin(self, name: str, total: int | None, unit: str) -> None:
        self.seen.append((name, self._loaded()))

    def advance(self, amount: int) -> None:
        pass

    def end(self, report: StageReport) -> None:
        self.seen.append((report.name, self._loaded()))


QUICK = {"frames": 17, "height": 32, "width": 48, "steps": 2}


def test_one_model_at_a_time(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    watcher = Watcher(pipe)
    pipe("a red circle", observer=watcher, **QUICK)
    assert watcher.seen == [
        ("Step-LLM", ()),
        ("Step-LLM", ("step_llm",)),
        ("CLIP", ()),
        ("CLIP", ("clip",)),
        ("load DiT", ()),
        ("load DiT", ("transformer",)),
        ("denoise", ("transformer",)),
        ("denoise", ("transformer",)),
        ("decode", ()),
        ("decode", ("vae",)),
    ]
    assert watcher._loaded() == ()


def test_a_borrowed_model_stays_for_many_videos(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    watcher = Watcher(pipe)
    with pytest.raises(NumericalFailure), pipe.residency.borrowed("transformer"):
        for seed in (1, 2):
            pipe("a red circle", observer=watcher, seed=seed, **QUICK)
        assert watcher._loaded() == ("transformer",)
        raise NumericalFailure("even so it is freed")
    loads = [loaded for name, loaded in watcher.seen if name == "load DiT"]
    assert loads == [(), ("transformer",), ("transformer",), ("transformer",)]
    assert watcher._loaded() == ()


def test_many_texts_are_encoded_as_each_alone(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    log = StageLog(pipe.device)
    texts = ["a red circle", "", "一个蓝色的方块"]
    for text, embedding in zip(texts, pipe.encode_texts(texts, log), strict=True):
        (alone,) = pipe.encode_texts([text], log)
        assert torch.equal(embedding.llm_1LC, alone.llm_1LC)
        assert torch.equal(embedding.clip_1PC, alone.clip_1PC)


def test_offload_none_keeps_every_model(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint, offload="none")
    first = pipe("a red circle", **QUICK)
    assert Watcher(pipe)._loaded() == ("step_llm", "clip", "transformer", "vae")
    again = pipe("a red circle", **QUICK)
    assert torch.equal(first.frames, again.frames)


def test_what_changes_a_video_and_what_does_not(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    base = pipe("a red circle moves right", seed=5, **QUICK)
    same = pipe("a red circle moves right", seed=5, **QUICK)
    assert torch.equal(base.frames, same.frames)
    assert torch.equal(base.latents, same.latents)
    for changed in (
        pipe("a blue square", seed=5, **QUICK),
        pipe("a red circle moves right", seed=6, **QUICK),
        pipe("a red circle moves right", seed=5, cfg_scale=1.0, **QUICK),
        pipe("a red circle moves right", seed=5, negative_prompt="noise", **QUICK),
    ):
        assert not torch.equal(base.latents, changed.latents)
    assert base.frames.float().std() > 1, "a constant video would prove nothing"


def test_guidance_scale_one_encodes_and_runs_one_branch(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    calls: list[int] = []
    transformer = pipe.modules["transformer"]
    transformer.register_forward_hook(lambda *_: calls.append(1))
    settings, _ = pipe.settings("a red circle", cfg_scale=1.0, **QUICK)
    assert len(pipe.encode_text(settings, StageLog(pipe.device))) == 1
    pipe("a red circle", cfg_scale=1.0, **QUICK)
    assert len(calls) == 2
    pipe("a red circle", cfg_scale=3.0, **QUICK)
    assert len(calls) == 2 + 4


def test_text_is_projected_once_per_prompt(tiny_checkpoint: Path) -> None:
    """Keys, values and caption projections do not run again in the denoising steps."""
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    calls: list[str] = []
    transformer = pipe.modules["transformer"]
    for name, module in transformer.named_modules():
        if name in ("caption_projection", "transformer_blocks.0.attn2.wkv", "adaln_single.linear"):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    pipe("a red circle", **(QUICK | {"steps": 5}))
    assert sorted(calls) == sorted(
        ["caption_projection", "transformer_blocks.0.attn2.wkv"] * 2 + ["adaln_single.linear"]
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".mp4"])
def test_save(tiny_checkpoint: Path, tmp_path: Path, suffix: str) -> None:
    result = StepVideoPipeline.from_pretrained(tiny_checkpoint)("a red circle", **QUICK)
    path = result.save(tmp_path / f"video{suffix}")
    assert path.stat().st_size > 0
    sidecar = json.loads((tmp_path / f"video{suffix}.json").read_text(encoding="utf-8"))
    assert sidecar["settings"]["prompt"] == "a red circle"
    assert sidecar["trained"] is False
    assert {row["name"] for row in sidecar["stages"]} >= {"denoise", "decode"}
    if suffix == ".safetensors":
        saved = load_file(path)
        assert torch.equal(saved["frames"], result.frames)
        assert torch.equal(saved["latents"], result.latents)


def test_a_prompt_that_does_not_fit(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    with pytest.raises(InvalidRequest, match=r"has \d,?\d+ tokens but the model reads 318"):
        pipe.settings("星" * 10_000)
    _, notes = pipe.settings("星" * 10_000, truncate_prompt=True)
    assert "were cut" in notes[0]


def test_a_stage_that_does_not_fit_is_refused_before_loading(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    watcher = Watcher(pipe)
    with pytest.raises(NotEnoughMemory, match=r"needs about .* weights, .* activations"):
        pipe("a red circle", memory_limit="1MiB", observer=watcher, **QUICK)
    assert watcher.seen == []


def test_bfloat16_and_official_numerics_run(tiny_checkpoint: Path) -> None:
    options: dict[str, Any] = {"dtype": torch.bfloat16}
    accurate = StepVideoPipeline.from_pretrained(tiny_checkpoint, **options)("a star", **QUICK)
    official = StepVideoPipeline.from_pretrained(tiny_checkpoint, numerics="official", **options)(
        "a star", **QUICK
    )
    assert not torch.equal(accurate.latents, official.latents)
    assert official.record["numerics"] == "official"


@pytest.mark.parametrize(
    ("valid", "official"), [(100, 100), (180, 179), (182, 183), (318, 319), (320, 319)]
)
def test_official_numerics_round_the_text_length(valid: int, official: int) -> None:
    """257 becomes 256 and 395 becomes 396 when bfloat16 sums the mask."""
    from stepvideo_core.models.tokenizers import LLMTokens

    tokens = LLMTokens(torch.zeros(320, dtype=torch.int64), valid, 0)
    assert _attended(tokens, torch.bfloat16, "accurate") == valid
    assert _attended(tokens, torch.float32, "official") == valid
    assert _attended(tokens, torch.bfloat16, "official") == official


def test_nan_in_the_latents_does_not_become_a_black_video(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint)
    with pytest.raises(NumericalFailure, match="decoded frames are not finite"):
        list(pipe.decode_frames(torch.full((1, 3, 8, 2, 2), torch.nan), StageLog(pipe.device)))


def test_shadow_is_reported(tiny_checkpoint: Path) -> None:
    pipe = StepVideoPipeline.from_pretrained(tiny_checkpoint, shadow="numpy64")
    result = pipe("a red circle", **(QUICK | {"frames": 1}))
    rows = {(row["op"], row["site"]): row for row in result.record["shadow"]}
    row = rows["attention", "dit.self"]
    assert row["calls"] == 2 * 2 * 3
    assert 0 < row["max_rel"] < 2e-6
