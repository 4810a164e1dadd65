"""From a prompt to the two text embeddings, trimmed to the tokens that count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stepvideo_core.checkpoints.layout import CheckpointLayout
from stepvideo_core.config import CLIP_MAX_TOKENS, LLM_MAX_TOKENS, Numerics
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.memory.residency import Residency
from stepvideo_core.models.tokenizers import ClipTokenizer, LLMTokens, StepTokenizer
from stepvideo_core.progress import StageLog

_MAX_PIECES = LLM_MAX_TOKENS - 2  # without BOS and EOS


@dataclass(frozen=True)
class TextEmbedding:
    """What the transformer reads of one text, without padding.

    llm_1LC: Step-LLM states of the attended tokens; clip_1PC: all 77 Hunyuan-CLIP states, whose
    padding the model does attend. Both in the transformer's dtype.
    """

    llm_1LC: Tensor
    clip_1PC: Tensor

    def to(self, device: torch.device | str) -> TextEmbedding:
        """The same on another device: many prompts wait on the host for their turn."""
        return TextEmbedding(self.llm_1LC.to(device), self.clip_1PC.to(device))


class TextEncoder:
    """Tokenizes and encodes texts; each encoder's weights are loaded, used and freed in turn."""

    def __init__(self, layout: CheckpointLayout) -> None:
        self._tokenize_llm = StepTokenizer(layout.tokenizer_path)
        self._tokenize_clip = ClipTokenizer(layout.clip_tokenizer_folder)

    def check_length(self, prompt: str, suffix: str, *, truncate: bool) -> list[str]:
        """Notes about what the model will not read.

        Raises InvalidRequest if the prompt itself does not fit and truncation was not asked for:
        the official pipeline cuts it silently.
        """
        dropped = self._tokenize_llm(prompt).dropped
        if dropped and not truncate:
            raise InvalidRequest(
                f"the prompt has {_MAX_PIECES + dropped:,} tokens but the model reads "
                f"{_MAX_PIECES}: shorten it, or let it be cut with --truncate-prompt"
            )
        if dropped:
            return [f"the last {dropped} tokens of the prompt were cut"]
        if self._tokenize_llm(prompt + suffix).dropped:
            return ["the prompt leaves no room for all of the positive suffix; its end was cut"]
        return []

    def encode(
        self,
        texts: Sequence[str],
        residency: Residency,
        log: StageLog,
        *,
        device: torch.device,
        dtype: torch.dtype,
        numerics: Numerics,
    ) -> list[TextEmbedding]:
        """One embedding per text."""
        with residency.borrowed("step_llm"), log.stage("Step-LLM", len(texts), "texts") as advance:
            step_llm = residency.load("step_llm")
            llm_states = []
            for text in texts:
                tokens = self._tokenize_llm(text)
                ids_1L = tokens.ids_L[None, : _attended(tokens, dtype, numerics)].to(device)
                llm_states.append(step_llm(ids_1L).to(dtype))
                advance(1)
        with residency.borrowed("clip"), log.stage("CLIP", len(texts), "texts") as advance:
            clip = residency.load("clip")
            clip_states = []
            for text in texts:
                row = self._tokenize_clip(text)
                states = clip(row.ids_P[None].to(device), row.mask_P[None].to(device))
                clip_states.append(states.to(dtype))
                advance(1)
        return [TextEmbedding(*pair) for pair in zip(llm_states, clip_states, strict=True)]


def _attended(tokens: LLMTokens, dtype: torch.dtype, numerics: Numerics) -> int:
    """How many Step-LLM positions the transformer attends.

    The official pipeline sums the 0/1 mask of CLIP and Step-LLM in the model's dtype. Above 256
    bfloat16 knows only even numbers, so a token is dropped or a padding token is attended.
    """
    if numerics == "accurate":
        return tokens.length
    total = CLIP_MAX_TOKENS + tokens.length
    return int(torch.tensor(total, dtype=torch.float32).to(dtype)) - CLIP_MAX_TOKENS
