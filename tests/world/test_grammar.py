"""Captions and their reading are each other's inverse; other texts are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepvideo_world.grammar import (
    LANGUAGES,
    Language,
    Named,
    OutsideGrammar,
    ThingNamed,
    caption,
    parse,
)
from stepvideo_world.sample import TINY, WORLD, Distribution, sample_scene
from stepvideo_world.scene import Ground
from stepvideo_world.words import VOCABULARY

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=400, deadline=None)
@given(SEEDS, st.sampled_from(LANGUAGES), st.sampled_from([TINY, WORLD]))
def test_a_caption_reads_as_its_scene(
    seed: int, language: Language, distribution: Distribution
) -> None:
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, distribution)
    named = parse(caption(scene, language, rng))
    assert named.language == language
    assert len(named.things) == len(scene.things)
    for said, thing in zip(named.things, scene.things, strict=True):
        assert None not in (said.shape, said.colour, said.motion)
        assert said.fits(thing)
    assert named.ground in (None, scene.ground)


def test_captions_of_a_scene_are_many_and_say_more_or_less() -> None:
    scene = sample_scene(np.random.default_rng(2), TINY)
    rng = np.random.default_rng(0)
    for language in LANGUAGES:
        texts = {caption(scene, language, rng) for _ in range(300)}
        assert len(texts) > 50
        assert {parse(text).ground is None for text in texts} == {True, False}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a red circle moves right",
            Named(
                language="en",
                things=(ThingNamed(shape="circle", colour="red", motion="right"),),
            ),
        ),
        (
            "On a black background, a BLUE five-pointed star quickly moves up and to the left!",
            Named(
                language="en",
                things=(ThingNamed(shape="star", colour="blue", motion="up-left", speed="fast"),),
                ground=Ground.plain("black"),
            ),
        ),
        (
            "一个大红色的圆形慢慢地向右移动，在白色背景上",
            Named(
                language="zh",
                things=(
                    ThingNamed(
                        shape="circle", colour="red", motion="right", speed="slow", size="large"
                    ),
                ),
                ground=Ground.plain("white"),
            ),
        ),
        ("a star", Named(language="en", things=(ThingNamed(shape="star"),))),
    ],
)
def test_reading(text: str, expected: Named) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a red fox in the snow", "does not know 'fox"),
        ("a red circle moves rightish", "does not know"),
        ("", "names 0 things"),
        ("a red", "without a shape"),
        ("a red blue circle", "two values of colour"),
        ("moves right", "before any shape"),
        ("a circle, a square and a star", "names 3 things"),
        ("a star on a black background on a white background", "two backgrounds"),
        ("一只狐狸", "does not know"),
    ],
)
def test_other_texts_are_refused(text: str, words: str) -> None:
    with pytest.raises(OutsideGrammar, match=words):
        parse(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_phrase_has_two_meanings(language: Language) -> None:
    words = VOCABULARY[language]
    tables = (words.shapes, words.colours, words.motions, words.speeds, words.sizes)
    phrases = [phrase for table in tables for options in table.values() for phrase in options]
    phrases += [*words.conjunctions, *words.fillers]
    assert len(phrases) == len(set(phrases))
