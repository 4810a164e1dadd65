"""What is to be generated: prompts of a file, or of the world's held-out compositions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stepvideo_core.errors import InvalidRequest
from stepvideo_world.grammar import LANGUAGES, Language, Named, OutsideGrammar, parse
from stepvideo_world.sample import TINY, WORLD, Distribution
from stepvideo_world.split import held_out_prompts

WORLDS: Mapping[str, Distribution] = {"tiny": TINY, "whole": WORLD}
"""Parts of the world by the name that the command line gives them."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt and what it names, or why that cannot be told.

    language: `en` or `zh` for prompts of the world's grammar, else None.
    """

    text: str
    named: Named | None
    why_not: str | None = None

    @property
    def language(self) -> Language | None:
        return None if self.named is None else self.named.language


def understood(text: str) -> Prompt:
    """A prompt with what it names, if the world's grammar can read it."""
    try:
        return Prompt(text=text, named=parse(text))
    except OutsideGrammar as error:
        return Prompt(text=text, named=None, why_not=str(error))


def read_prompts(path: Path) -> list[Prompt]:
    """One prompt per line; empty lines and lines that begin with # are skipped.

    Raises InvalidRequest if the file cannot be read or has no prompt.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--prompts {path} cannot be read: {error}") from error
    prompts = [understood(line) for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise InvalidRequest(f"--prompts {path} has no prompt: write one per line")
    return prompts


def held_out(count: int, languages: Sequence[Language], seed: int, world: str) -> list[Prompt]:
    """`count` prompts in each language, of compositions that training never shows.

    The size of the scenes' frames is irrelevant here: only what the captions name is judged.
    """
    return [
        understood(prompt.text)
        for number, language in enumerate(languages)
        for prompt in held_out_prompts(count, language, seed + number, WORLDS[world])
    ]


def parse_languages(text: str) -> list[Language]:
    """`en,zh` as on the command line; InvalidRequest for others, repeated ones and none."""
    names = [name.strip() for name in text.split(",")]
    known: dict[str, Language] = {language: language for language in LANGUAGES}
    if not all(name in known for name in names) or len(set(names)) < len(names):
        raise InvalidRequest(f"--language {text!r}: give {' or '.join(LANGUAGES)}, or both: en,zh")
    return [known[name] for name in names]
