"""Random scenes keep to their distribution and their frame; the split keeps its promise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepvideo_world.grammar import LANGUAGES, parse
from stepvideo_world.render import render, trajectory
from stepvideo_world.sample import TINY, WORLD, Distribution, sample_scene
from stepvideo_world.scene import REACH, SIZE_RADIUS, SPEED_DISTANCE
from stepvideo_world.split import (
    held_out_prompts,
    held_out_scene,
    is_for_training,
    is_held_out,
    training_scene,
)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([TINY, WORLD]))
def test_scenes_keep_to_their_distribution(seed: int, distribution: Distribution) -> None:
    scene = sample_scene(np.random.default_rng(seed), distribution)
    assert len(scene.things) in distribution.counts
    assert {scene.ground.top, scene.ground.bottom} <= set(distribution.grounds)
    assert distribution.gradients or scene.ground.is_plain
    for thing in scene.things:
        assert thing.shape in distribution.shapes
        assert thing.colour in distribution.colours
        assert thing.motion in distribution.motions
        assert thing.size in distribution.sizes
        low, high = SIZE_RADIUS[thing.size]
        assert low <= thing.radius <= high
        if thing.moves:
            low, high = SPEED_DISTANCE[thing.speed]
            assert low <= thing.distance <= high + 1e-9
        place_T2, radius_T, _ = trajectory(thing, scene.num_frames)
        reach_T1 = (radius_T * REACH[thing.shape])[:, None]
        assert (place_T2 >= reach_T1 - 1e-4).all()
        assert (place_T2 <= 1 - reach_T1 + 1e-4).all()


def test_a_seed_is_a_scene() -> None:
    one, same, other = (sample_scene(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one == same != other
    assert np.array_equal(render(one), render(same))


def test_everything_listed_occurs() -> None:
    rng = np.random.default_rng(0)
    things = [thing for _ in range(1500) for thing in sample_scene(rng, WORLD).things]
    for name in ("shape", "colour", "motion", "size", "speed"):
        assert {getattr(thing, name) for thing in things} == set(getattr(WORLD, f"{name}s"))


def test_the_split_is_disjoint_and_complete() -> None:
    rng = np.random.default_rng(0)
    seen, kept = (
        {
            (thing.colour, thing.shape, thing.motion)
            for _ in range(500)
            for thing in draw(rng, TINY).things
        }
        for draw in (training_scene, held_out_scene)
    )
    assert not seen & kept
    assert all(map(is_for_training, seen))
    assert all(map(is_held_out, kept))
    # Every single value occurs in training: what is new in the held-out ones is the combination.
    for place, values in enumerate((TINY.colours, TINY.shapes, TINY.motions)):
        assert {triple[place] for triple in seen} == set(values)
    total = len(TINY.colours) * len(TINY.shapes) * len(TINY.motions)
    assert 0.08 < len(kept) / total < 0.18


def test_the_first_example_is_trained_on() -> None:
    assert is_for_training(("red", "circle", "right"))


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_prompts(language: str) -> None:
    prompts = held_out_prompts(30, language, 5, TINY)  # type: ignore[arg-type]
    assert prompts == held_out_prompts(40, language, 5, TINY)[:30]  # type: ignore[arg-type]
    assert prompts != held_out_prompts(30, language, 6, TINY)  # type: ignore[arg-type]
    for prompt in prompts:
        named = parse(prompt.text)
        assert named.language == language
        assert named.things[0].fits(prompt.scene.things[0])
        thing = prompt.scene.things[0]
        assert is_held_out((thing.colour, thing.shape, thing.motion))


def test_impossible_distributions_are_refused() -> None:
    with pytest.raises(ValueError, match="colours of the distribution is empty"):
        replace(TINY, colours=())
    with pytest.raises(ValueError, match="two large things"):
        replace(TINY, counts=(2,))
    only = replace(TINY, shapes=("circle",), motions=("rotate",))
    with pytest.raises(ValueError, match="no allowed"):
        sample_scene(np.random.default_rng(0), only)
