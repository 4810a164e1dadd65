"""Captions of scenes, and what a caption says: two functions, each the other's inverse.

A caption names each thing's shape, colour and motion. Size, speed and ground may go unsaid.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stepvideo_world.scene import (
    GROUND_COLOURS,
    Colour,
    Ground,
    Motion,
    Scene,
    Shape,
    Size,
    Speed,
    Thing,
)
from stepvideo_world.words import LANGUAGES, VOCABULARY, Language, Words, ground_table

_NAME_GROUND, _NAME_SIZE, _NAME_SPEED = 0.5, 0.2, 0.3
"""How often a caption says what it need not say."""


@dataclass(frozen=True, kw_only=True)
class ThingNamed:
    """What a caption says of one thing; None is unsaid."""

    shape: Shape | None = None
    colour: Colour | None = None
    motion: Motion | None = None
    speed: Speed | None = None
    size: Size | None = None

    def fits(self, thing: Thing) -> bool:
        """Whether the thing is as the caption says."""
        return all(
            said is None or said == getattr(thing, name) for name, said in vars(self).items()
        )


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a caption says of a scene: its things in order, and the ground if it is named."""

    language: Language
    things: tuple[ThingNamed, ...]
    ground: Ground | None = None


class OutsideGrammar(ValueError):
    """A text that the grammar cannot have made; the message says where it ends to be understood."""


def caption(scene: Scene, language: Language, rng: np.random.Generator) -> str:
    """One of the many captions of a scene."""
    words = VOCABULARY[language]
    clauses = [_clause(thing, words, language, rng) for thing in scene.things]
    joint = f" {_pick(rng, words.conjunctions)} " if language == "en" else "，"
    if language == "zh" and rng.random() < 0.5:
        joint = _pick(rng, words.conjunctions)
    text = joint.join(clauses)
    if rng.random() < _NAME_GROUND:
        ground = _pick(rng, words.ground_phrases(scene.ground))
        first = rng.random() < (0.5 if language == "zh" else 0.2)
        if language == "en":
            text = f"{ground}, {text}" if first else f"{text} {ground}"
        else:
            text = f"{ground}，{text}" if first else f"{text}，{ground}"
    return text


def parse(text: str) -> Named:
    """What a caption names. Raises OutsideGrammar for a text with words of neither language.

    Reads the longest phrase that fits at each place, so it also understands captions that
    `caption` would not make, such as one that names a shape only.
    """
    folded = unicodedata.normalize("NFKC", text).strip().lower()
    language: Language = "en" if folded.isascii() else "zh"
    table = _phrases(language)
    pattern = _pattern(language)
    things: list[ThingNamed] = []
    waiting = ThingNamed()
    ground: Ground | None = None
    place = 0
    while place < len(folded):
        if folded[place].isspace() or folded[place] in ",.;:!，。；：！、":
            place += 1
            continue
        match = pattern.match(folded, place)
        if match is None:
            raise OutsideGrammar(f"the world's grammar does not know {folded[place:]!r}")
        place = match.end()
        kind, value = table[match[0]]
        if kind == "shape":
            things.append(replace(waiting, shape=value))
            waiting = ThingNamed()
        elif kind in ("colour", "size"):
            waiting = replace(waiting, **{kind: _once(waiting, kind, value, text)})
        elif kind in ("motion", "speed"):
            # An adverb may stand before its verb, but both follow the shape.
            if not things:
                raise OutsideGrammar(f"{match[0]!r} stands before any shape in {text!r}")
            things[-1] = replace(things[-1], **{kind: _once(things[-1], kind, value, text)})
        elif kind == "ground":
            if ground is not None:
                raise OutsideGrammar(f"{text!r} names two backgrounds")
            ground = value
    if waiting != ThingNamed():
        raise OutsideGrammar(f"{text!r} has a colour or a size without a shape behind it")
    if not 1 <= len(things) <= 2:
        raise OutsideGrammar(f"{text!r} names {len(things)} things, not one or two")
    return Named(language=language, things=tuple(things), ground=ground)


def _once(named: ThingNamed, kind: str, value: Any, text: str) -> Any:
    if getattr(named, kind) is not None:
        raise OutsideGrammar(f"{text!r} names two values of {kind} for one thing")
    return value


def _clause(thing: Thing, words: Words, language: Language, rng: np.random.Generator) -> str:
    shape = _pick(rng, words.shapes[thing.shape])
    colour = _pick(rng, words.colours[thing.colour])
    motion = _pick(rng, words.motions[thing.motion])
    size = _pick(rng, words.sizes[thing.size]) if rng.random() < _NAME_SIZE else ""
    says_speed = thing.moves and rng.random() < _NAME_SPEED
    speed = _pick(rng, words.speeds[thing.speed]) if says_speed else ""
    if language == "en":
        noun = " ".join(word for word in (size, colour, shape) if word)
        article = "an" if noun[0] in "aeiou" else "a"
        tail = f"{speed} {motion}" if speed and rng.random() < 0.3 else f"{motion} {speed}"
        return f"{article} {noun} {tail}".rstrip()
    measure = "一颗" if thing.shape == "star" and rng.random() < 0.5 else "一个"
    link = "的" if len(colour) > 1 and rng.random() < 0.6 else ""
    adverb = speed + ("地" if speed and rng.random() < 0.5 else "")
    return f"{measure}{size}{colour}{link}{shape}{adverb}{motion}"


@functools.cache
def _phrases(language: Language) -> dict[str, tuple[str, Any]]:
    """Every phrase with the attribute and the value that it names."""
    words = VOCABULARY[language]
    table: dict[str, tuple[str, Any]] = {}
    for kind in ("shape", "colour", "motion", "speed", "size"):
        for value, phrases in getattr(words, f"{kind}s").items():
            table |= dict.fromkeys(phrases, (kind, value))
    table |= {phrase: ("ground", ground) for phrase, ground in ground_table(words, GROUND_COLOURS)}
    table |= dict.fromkeys([*words.conjunctions, *words.fillers], ("filler", None))
    return table


@functools.cache
def _pattern(language: Language) -> re.Pattern[str]:
    longest_first = sorted(_phrases(language), key=len, reverse=True)
    border = r"(?![\w-])" if language == "en" else ""
    return re.compile(f"(?:{'|'.join(map(re.escape, longest_first))}){border}")


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


__all__ = ["LANGUAGES", "Language", "Named", "OutsideGrammar", "ThingNamed", "caption", "parse"]
