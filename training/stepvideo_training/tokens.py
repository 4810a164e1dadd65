"""Captions to batches of token ids, with the tokenizer files that will be shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from stepvideo_core.checkpoints.model_folder import CLIP_TOKENIZER_FOLDER, STEP_TOKENIZER_FILE
from stepvideo_core.checkpoints.tokenizer_files import write_clip_tokenizer, write_step_tokenizer
from stepvideo_core.config import CLIP_MAX_TOKENS, ModelConfig
from stepvideo_core.models.tokenizers import ClipTokenizer, ClipTokens, LLMTokens, StepTokenizer


@dataclass(frozen=True)
class TextBatch:
    """llm_ids_BL: as many columns as the longest caption needs. lengths: text tokens that the
    transformer attends per sample, all of CLIP's and the valid ones of Step-LLM's."""

    llm_ids_BL: Tensor
    clip_ids_BP: Tensor
    clip_mask_BP: Tensor
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> TextBatch:
        return TextBatch(
            self.llm_ids_BL.to(device),
            self.clip_ids_BP.to(device),
            self.clip_mask_BP.to(device),
            self.lengths,
        )

    @property
    def llm_lengths(self) -> tuple[int, ...]:
        return tuple(length - CLIP_MAX_TOKENS for length in self.lengths)


class CaptionTokenizer:
    """Both tokenizers; remembers what it has seen, since captions come back."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        """Writes the tokenizer files to `folder` unless they are there."""
        step_file, clip_folder = folder / STEP_TOKENIZER_FILE, folder / CLIP_TOKENIZER_FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        if not step_file.is_file():
            write_step_tokenizer(step_file, config.step_llm.padded_vocab_size)
        if not (clip_folder / "vocab.txt").is_file():
            write_clip_tokenizer(clip_folder, config.clip.vocab_size)
        self._llm, self._clip = StepTokenizer(step_file), ClipTokenizer(clip_folder)
        self._seen: dict[str, tuple[LLMTokens, ClipTokens]] = {}

    def __call__(self, captions: Sequence[str]) -> TextBatch:
        """One row per caption; an empty one is what guidance calls unconditional."""
        rows = [self._row(text) for text in captions]
        lengths = tuple(llm.length for llm, _ in rows)
        return TextBatch(
            torch.stack([llm.ids_L[: max(lengths)] for llm, _ in rows]),
            torch.stack([clip.ids_P for _, clip in rows]),
            torch.stack([clip.mask_P for _, clip in rows]),
            tuple(CLIP_MAX_TOKENS + length for length in lengths),
        )

    def _row(self, text: str) -> tuple[LLMTokens, ClipTokens]:
        if text not in self._seen:
            self._seen[text] = (self._llm(text), self._clip(text))
        return self._seen[text]
