"""`pipe.batch`: the same videos as one by one, the encoders loaded once, failures passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stepvideo_core import StepVideoPipeline, VideoResult, batch
from stepvideo_core.batch import FailedVideo
from stepvideo_core.errors import InvalidRequest, NumericalFailure
from stepvideo_core.progress import StageReport
from stepvideo_core.prompts import Request

SIZE: dict[str, Any] = {"frames": 1, "height": 32, "width": 48, "steps": 1}


class Names:
    """An observer that keeps the stages and their counts."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []

    def begin(self, name: str, total: int | None, unit: str) -> None:
        self.stages.append((name, total))

    def advance(self, amount: int) -> None:
        pass

    def end(self, report: StageReport) -> None:
        pass


def requests(*prompts: str) -> list[Request]:
    return [{"prompt": prompt, "seed": 3, **SIZE} for prompt in prompts]  # type: ignore[typeddict-item]


def test_a_batch_equals_its_videos(tiny_checkpoint: Path) -> None:
    pipe, observer = StepVideoPipeline.from_pretrained(tiny_checkpoint), Names()
    prompts = ("a red circle", "a blue square", "a red circle")
    results = list(pipe.batch(requests(*prompts), observer=observer))
    for prompt, result in zip(prompts, results, strict=True):
        assert isinstance(result, VideoResult)
        assert torch.equal(result.latents, pipe(prompt, seed=3, **SIZE).latents)
    # Two prompts and one negative prompt, each encoded once.
    assert observer.stages[:2] == [("Step-LLM", 3), ("CLIP", 3)]
    assert [name for name, _ in observer.stages].count("Step-LLM") == 1


def test_embeddings_do_not_pile_up(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for two texts, every video's pair comes in a group of its own."""
    pipe, observer = StepVideoPipeline.from_pretrained(tiny_checkpoint), Names()
    monkeypatch.setattr(batch, "TEXT_BYTES", 1)
    results = list(pipe.batch(requests("a", "b", "a"), observer=observer))
    assert [total for name, total in observer.stages if name == "Step-LLM"] == [2, 2, 2]
    first, last = results[0], results[2]
    assert isinstance(first, VideoResult) and isinstance(last, VideoResult)
    assert torch.equal(first.latents, last.latents)


def test_checks_come_first_and_failures_are_passed_over(tiny_checkpoint: Path) -> None:
    pipe, observer = StepVideoPipeline.from_pretrained(tiny_checkpoint), Names()
    faulty = [*requests("a", " "), {**requests("b")[0], "height": 33}]
    with pytest.raises(
        InvalidRequest, match=r"request 2: the prompt is empty.*; request 3: --height"
    ):
        pipe.batch(faulty, observer=observer)  # type: ignore[arg-type]
    assert observer.stages == []
    calls = 0

    def poison(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return output * torch.nan if calls == 3 else output

    pipe.modules["transformer"].register_forward_hook(poison)
    good, bad, after = pipe.batch(requests("a", "b", "c"))
    assert isinstance(good, VideoResult) and isinstance(after, VideoResult)
    assert isinstance(bad, FailedVideo)
    assert bad.request["prompt"] == "b"
    assert isinstance(bad.error, NumericalFailure)
