"""Step-LLM, Hunyuan-CLIP and both tokenizers against the official implementation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stepvideo_core.checkpoints.load import KEY_MAPS, load_weights
from stepvideo_core.checkpoints.sources import TorchFileSource
from stepvideo_core.config import ClipConfig, StepLLMConfig
from stepvideo_core.errors import CheckpointError
from stepvideo_core.models.clip import HunyuanClip
from stepvideo_core.models.step_llm import StepLLM, sqrt_alibi_slopes
from stepvideo_core.models.tokenizers import ClipTokenizer, StepTokenizer

from .closeness import relative_error

LLM = StepLLMConfig(
    hidden_size=64,
    num_layers=2,
    num_attention_heads=4,
    num_attention_groups=2,
    ffn_hidden_size=200,
    padded_vocab_size=832,
)
CLIP = ClipConfig(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=72,
    vocab_size=344,
    max_position_embeddings=128,
)


@pytest.mark.parametrize("impl", ["sdpa", "chunked", "eager"])
def test_step_llm(
    golden: Callable[[str], Path], make_plan: Any, load_model: Any, impl: str
) -> None:
    folder = golden("step_llm")
    data = load_file(folder / "golden.safetensors")
    plan = make_plan(ops=[f"attention=reference:{impl}"])
    model = load_model(lambda: StepLLM(LLM, plan), "step_llm", folder / "model.safetensors")
    assert relative_error(model(data["input_ids"]), data["output"]) < 1e-5
    assert relative_error(model(data["max64.input_ids"]), data["max64.output"]) < 1e-5


def test_only_the_valid_prefix_need_be_encoded(
    golden: Callable[[str], Path], make_plan: Any, load_model: Any
) -> None:
    folder = golden("step_llm")
    data = load_file(folder / "golden.safetensors")
    plan = make_plan()
    model = load_model(lambda: StepLLM(LLM, plan), "step_llm", folder / "model.safetensors")
    for row, length in enumerate(data["attention_mask"].sum(dim=1).tolist()):
        states = model(data["input_ids"][row : row + 1, :length])
        assert relative_error(states, data["output"][row : row + 1, :length]) < 1e-5


def test_slopes(golden: Callable[[str], Path]) -> None:
    data = load_file(golden("step_llm/golden.safetensors"))
    assert torch.equal(sqrt_alibi_slopes(4), data["alibi_slopes"])
    torch.testing.assert_close(sqrt_alibi_slopes(48), data["alibi_slopes_48"], rtol=1e-6, atol=0)


def test_ffn_width_is_rounded_up() -> None:
    assert LLM.ffn_width == 256
    assert StepLLMConfig().ffn_width == 16896


def test_hunyuan_clip(golden: Callable[[str], Path]) -> None:
    folder = golden("hunyuan_clip")
    data = load_file(folder / "golden.safetensors")
    with torch.device("meta"):
        model = HunyuanClip(CLIP)
    source = TorchFileSource(folder / "clip_text_encoder" / "pytorch_model.bin")
    device = torch.device("cpu")
    load_weights(model, source, KEY_MAPS["clip"], dtype=torch.float32, device=device)
    states = model.eval()(data["input_ids"], data["attention_mask"])
    assert relative_error(states, data["last_hidden_state"]) < 1e-5


def test_tokenizers(golden: Callable[[str], Path]) -> None:
    clip_folder, llm_folder = golden("hunyuan_clip"), golden("step_llm")
    prompts = json.loads((clip_folder / "golden.json").read_text())["prompts"]
    clip = load_file(clip_folder / "golden.safetensors")
    llm = load_file(llm_folder / "golden.safetensors")
    tokenize_clip = ClipTokenizer(clip_folder / "tokenizer")
    tokenize_llm = StepTokenizer(llm_folder / "step1_chat_tokenizer.model")
    for row, prompt in enumerate(prompts):
        tokens = tokenize_llm(prompt)
        assert torch.equal(tokens.ids_L, llm["input_ids"][row])
        assert tokens.length == llm["attention_mask"][row].sum()
        assert (tokens.dropped > 0) == (row == 3)
        assert torch.equal(tokenize_llm(prompt, 64).ids_L, llm["max64.input_ids"][row])
        pair = tokenize_clip(prompt)
        assert torch.equal(pair.ids_P, clip["input_ids"][row])
        assert torch.equal(pair.mask_P, clip["attention_mask"][row])


def test_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is missing: the Step-LLM tokenizer"):
        StepTokenizer(tmp_path / "absent.model")
    broken = tmp_path / "step1_chat_tokenizer.model"
    broken.write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="is not a SentencePiece model"):
        StepTokenizer(broken)
    with pytest.raises(CheckpointError, match=r"vocab\.txt is missing"):
        ClipTokenizer(tmp_path)
