"""Tokenizer files of the small models: a SentencePiece model and a BERT vocabulary.

Both come from `corpus.py` alone, so that every small checkpoint has the same ones.
"""

from __future__ import annotations

import io
import string
import unicodedata
from collections import Counter
from pathlib import Path

import sentencepiece

from stepvideo_core.checkpoints.corpus import sentences
from stepvideo_core.checkpoints.files import write_json
from stepvideo_core.config import CLIP_MAX_TOKENS
from stepvideo_core.errors import InvalidRequest, OutputError
from stepvideo_core.models.tokenizers import BOS, EOS, REQUIRED_PIECES

_DELIMITER = "|"
"""Between units of a sentence; not a character of the corpus."""
_REQUIRED_CHARACTERS = string.ascii_lowercase + string.digits + "!?;"
_BERT_SPECIALS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}


def write_step_tokenizer(path: Path, max_vocab_size: int) -> None:
    """Train the SentencePiece model of a small Step-LLM.

    Byte pairs with byte fallback, letter case folded; ids: 0 unknown, 1 BOS, 2 EOS, no padding.
    Raises InvalidRequest if the vocabulary cannot even hold the single characters, OutputError if
    the file cannot be written.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(_DELIMITER.join(units) for units in sentences()),
            model_writer=model,
            model_type="bpe",
            vocab_size=max_vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=1.0,
            required_chars=_REQUIRED_CHARACTERS,
            pretokenization_delimiter=_DELIMITER,
            # Users write "A red circle" as well as "a red circle".
            normalization_rule_name="nmt_nfkc_cf",
            unk_id=0,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=-1,
            # Never made from text, as in the official tokenizer.
            control_symbols=list(REQUIRED_PIECES),
            # Several threads would sum in another order on another machine.
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InvalidRequest(
            f"padded_vocab_size {max_vocab_size} of Step-LLM is too small: its tokenizer must hold "
            f"every byte and every character of its corpus ({error})"
        ) from error
    try:
        path.write_bytes(model.getvalue())
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def write_clip_tokenizer(folder: Path, max_vocab_size: int) -> None:
    """Write `vocab.txt` and the two JSON files of a small Hunyuan-CLIP.

    Special tokens, ASCII, the corpus' Chinese characters, then its English words from the most
    frequent on, as many as `max_vocab_size` allows. Raises InvalidRequest if that does not even
    cover the characters.
    """
    characters, words = _bert_entries()
    if len(characters) > max_vocab_size:
        raise InvalidRequest(
            f"vocab_size {max_vocab_size} of Hunyuan-CLIP is too small: its tokenizer has "
            f"{len(characters)} special tokens and characters"
        )
    entries = (characters + words)[:max_vocab_size]
    settings = {
        **_BERT_SPECIALS,
        "do_basic_tokenize": True,
        "do_lower_case": True,
        "model_max_length": CLIP_MAX_TOKENS,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
    }
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", dict(_BERT_SPECIALS))
    try:
        # newline: the file must be the same on every system.
        with (folder / "vocab.txt").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{entry}\n" for entry in entries)
    except OSError as error:
        raise OutputError(f"{folder / 'vocab.txt'} cannot be written: {error}") from error


def _bert_entries() -> tuple[list[str], list[str]]:
    """(special tokens and characters, whole words), each in a fixed order."""
    text = "\n".join("".join(units) for units in sentences()).lower()
    letters = string.ascii_lowercase + string.digits
    characters = [*_BERT_SPECIALS.values(), *string.punctuation, *letters]
    characters += [f"##{letter}" for letter in letters]
    # Punctuation and Chinese characters stand alone after BERT's first split.
    characters += sorted({c for c in text if not c.isascii() and unicodedata.category(c) != "Zs"})
    counts = Counter("".join(c if c in letters else " " for c in text).split())
    words = sorted((word for word in counts if len(word) > 1), key=lambda w: (-counts[w], w))
    return characters, words
