"""The two tokenizers: SentencePiece for Step-LLM, WordPiece for Hunyuan-CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor
from transformers import BertTokenizer

from stepvideo_core.config import CLIP_MAX_TOKENS, LLM_MAX_TOKENS
from stepvideo_core.errors import CheckpointError

BOS, EOS = 1, 2
PAD = EOS  # the official tokenizer pads with its end token
REQUIRED_PIECES = (
    "<|BOT|>",
    "<|EOT|>",
    "<|CALL_START|>",
    "<|CALL_END|>",
    "<|THINK_START|>",
    "<|THINK_END|>",
    "<|MASK_1e69f|>",
    "<|UNMASK_1e69f|>",
)


@dataclass(frozen=True)
class LLMTokens:
    """One padded row. ids: [320] int64; length: valid tokens, BOS and EOS included; dropped:
    tokens of the text that did not fit."""

    ids_L: Tensor
    length: int
    dropped: int


class StepTokenizer:
    """BOS, the text's pieces, EOS, then padding; special strings in the text are not parsed."""

    def __init__(self, path: Path) -> None:
        """Raises CheckpointError if the file is missing or no Step tokenizer."""
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: the Step-LLM tokenizer model")
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError, TypeError) as error:
            raise CheckpointError(f"{path} is not a SentencePiece model: {error}") from error
        for piece in REQUIRED_PIECES:
            if self._pieces.piece_to_id(piece) == self._pieces.unk_id():
                raise CheckpointError(f"{path} is not the Step tokenizer: it lacks {piece}")

    @property
    def vocab_size(self) -> int:
        """Number of pieces; every id is below it."""
        return int(self._pieces.vocab_size())

    def __call__(self, text: str, max_length: int = LLM_MAX_TOKENS) -> LLMTokens:
        """Tokens of one text, truncated to `max_length` like the official tokenizer."""
        pieces: list[int] = self._pieces.encode_as_ids(text)
        kept = pieces[: max_length - 2]
        row = [BOS, *kept, EOS]
        ids = torch.full((max_length,), PAD, dtype=torch.int64)
        ids[: len(row)] = torch.tensor(row)
        return LLMTokens(ids, len(row), len(pieces) - len(kept))


@dataclass(frozen=True)
class ClipTokens:
    """One padded row: ids and mask, both [77] int64."""

    ids_P: Tensor
    mask_P: Tensor


class ClipTokenizer:
    """WordPiece with [CLS] and [SEP], padded and truncated to 77."""

    def __init__(self, folder: Path) -> None:
        """Raises CheckpointError if the vocabulary is missing or broken."""
        vocab = folder / "vocab.txt"
        if not vocab.is_file():
            raise CheckpointError(f"{vocab} is missing: the Hunyuan-CLIP vocabulary")
        try:
            self._tokenizer = BertTokenizer.from_pretrained(str(folder))
        except (OSError, ValueError, UnicodeError) as error:
            raise CheckpointError(f"{folder} holds no usable BERT tokenizer: {error}") from error

    @property
    def vocab_size(self) -> int:
        """Number of entries; every id is below it."""
        return len(self._tokenizer)

    def __call__(self, text: str, max_length: int = CLIP_MAX_TOKENS) -> ClipTokens:
        """Tokens of one text; what does not fit is dropped, as in the official pipeline."""
        row = self._tokenizer(
            text, padding="max_length", truncation=True, max_length=max_length, return_tensors="pt"
        )
        return ClipTokens(row["input_ids"][0], row["attention_mask"][0])
