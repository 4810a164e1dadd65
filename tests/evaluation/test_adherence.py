"""The judge on clips whose content is known: the world's own renders, clean and degraded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from stepvideo_eval.adherence import ATTRIBUTES, Observation, everything, judge, observe
from stepvideo_eval.attributes import ThingSeen
from stepvideo_world.grammar import parse
from stepvideo_world.render import render
from stepvideo_world.sample import TINY, WORLD, Distribution, sample_scene
from stepvideo_world.scene import Ground, Scene, Thing

_MARGIN = 4


def blurred(video_THWC: NDArray[np.generic], sigma: float) -> NDArray[np.float32]:
    offsets = range(-_MARGIN, _MARGIN + 1)
    kernel = np.exp([-0.5 * (offset / sigma) ** 2 for offset in offsets])
    kernel /= kernel.sum()
    soft = video_THWC.astype(np.float32)
    for axis in (1, 2):
        last = soft.shape[axis] - 1
        places = np.arange(last + 1)
        soft = sum(
            np.float32(weight) * np.take(soft, np.clip(places + offset, 0, last), axis)
            for weight, offset in zip(kernel, offsets, strict=True)
        )
    return soft


def degraded(
    video_THWC: NDArray[np.uint8], sigma: float, noise: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Blurred by `sigma` pixels, then with normal noise of `noise` levels."""
    soft = blurred(video_THWC, sigma) if sigma else video_THWC
    noisy = soft + noise * rng.standard_normal(soft.shape, dtype=np.float32)
    return np.clip(noisy, 0, 255).round().astype(np.uint8)


def stained(
    video_THWC: NDArray[np.uint8], levels: float, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """As a weak VAE shows it: soft edges, stains that stay and stains that come and go."""
    frames, height, width = video_THWC.shape[:3]
    soft = blurred(video_THWC, 0.8)
    for count, cell, share in ((1, 4, 0.7), (frames, 8, 0.5), (frames, 2, 0.5)):
        shape = (count, -(-height // cell), -(-width // cell), 3)
        stains = rng.normal(0, share * levels, shape).repeat(cell, 1).repeat(cell, 2)
        soft = soft + blurred(stains[:, :height, :width], 1.0)
    return np.clip(soft, 0, 255).round().astype(np.uint8)


Worsen = Callable[[NDArray[np.uint8], np.random.Generator], NDArray[np.uint8]]


def wrong_share(
    distribution: Distribution, count: int, worsen: Worsen | None = None
) -> tuple[dict[str, float], list[str]]:
    """Share of clips in which an attribute is judged wrongly, and the mistakes."""
    rng = np.random.default_rng(2024)
    judged: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    mistakes = []
    for _ in range(count):
        scene = sample_scene(rng, distribution)
        video = render(scene)
        if worsen is not None:
            video = worsen(video, rng)
        verdict = judge(everything(scene), observe(video))
        for attribute, right in verdict.outcomes.items():
            judged[attribute] += 1
            wrong[attribute] += not right
        if not verdict.right:
            mistakes.append(f"{verdict.as_json()['wrong']} in {scene}")
    assert set(judged) == set(ATTRIBUTES)
    return {name: wrong[name] / judged[name] for name in judged}, mistakes


def test_ground_truth_of_the_whole_world() -> None:
    shares, mistakes = wrong_share(WORLD, 200)
    assert max(shares.values()) <= 0.01, mistakes


def test_ground_truth_at_a_larger_size() -> None:
    shares, mistakes = wrong_share(replace(WORLD, num_frames=34, height=96, width=128), 15)
    assert max(shares.values()) == 0, mistakes


@pytest.mark.parametrize(("sigma", "noise"), [(0.0, 10.0), (1.2, 0.0), (1.0, 16.0)])
def test_moderate_blur_and_noise(sigma: float, noise: float) -> None:
    shares, mistakes = wrong_share(
        WORLD, 40, lambda *clip: degraded(clip[0], sigma, noise, clip[1])
    )
    assert max(shares.values()) <= 0.03, mistakes


def test_stains_are_no_things() -> None:
    """About 26 dB for what `tiny` is trained on: less than its VAE should reach."""
    shares, mistakes = wrong_share(TINY, 40, lambda *clip: stained(clip[0], 20.0, clip[1]))
    assert max(shares.values()) == 0, mistakes


SEEN = Observation(
    ground=Ground.plain("white"),
    things=(
        ThingSeen(shape="circle", colour="red", motion="right", speed="normal", size="large"),
        ThingSeen(shape="star", colour="blue", motion="stay", speed=None, size=None),
    ),
    num_things=2,
)


def test_only_what_is_named_is_judged() -> None:
    verdict = judge(parse("a star and a red circle moves right"), SEEN)
    assert verdict.outcomes == {"count": True, "colour": True, "shape": True, "motion": True}
    assert verdict.right


def test_things_are_matched_in_the_order_that_fits() -> None:
    verdict = judge(parse("a blue star stays still and a red circle moves left"), SEEN)
    (mistake,) = verdict.as_json()["wrong"]
    assert mistake == {"attribute": "motion", "named": "left", "seen": "right"}
    assert verdict.outcomes["colour"] and not verdict.right


def test_a_missing_thing_and_an_unclear_attribute_are_wrong() -> None:
    alone = Observation(ground=None, things=SEEN.things[1:], num_things=1)
    text = "a small blue star stays still and a red circle moves right on a white background"
    wrong = judge(parse(text), alone).as_json()["wrong"]
    assert {(each["attribute"], each["seen"]) for each in wrong} == {
        ("count", "1"),
        ("size", "unclear"),
        ("colour", "nothing"),
        ("shape", "nothing"),
        ("motion", "nothing"),
        ("background", "unclear"),
    }


def test_a_superfluous_thing_is_wrong() -> None:
    assert judge(parse("a red circle moves right"), SEEN).outcomes["count"] is False


def thing(**changes: object) -> Thing:
    usual = Thing(
        shape="square",
        colour="green",
        motion="stay",
        speed="normal",
        size="large",
        x=0.5,
        y=0.5,
        radius=0.22,
    )
    return replace(usual, **changes)  # type: ignore[arg-type]


def shown(*things: Thing) -> NDArray[np.uint8]:
    return render(Scene(things=things, ground=Ground.plain("gray")))


def test_noise_shows_nothing_of_the_world() -> None:
    video = np.random.default_rng(0).integers(0, 256, (17, 64, 64, 3), dtype=np.uint8)
    verdict = judge(parse("a red circle moves right on a white background"), observe(video))
    assert not any(verdict.outcomes.values())


def test_an_empty_clip_shows_no_thing() -> None:
    seen = observe(np.full((17, 64, 64, 3), 128, dtype=np.uint8))
    assert (seen.num_things, seen.things, seen.ground) == (0, (), Ground.plain("gray"))


def test_a_single_frame_has_no_motion() -> None:
    (seen,) = observe(shown(thing())[:1]).things
    assert (seen.shape, seen.colour, seen.motion) == ("square", "green", None)


def test_two_motions_at_once_are_unclear() -> None:
    """Grows and moves: neither word is right."""
    grown, moved = shown(thing(motion="grow")), []
    for number, frame in enumerate(grown):
        moved.append(np.roll(frame, number, axis=1))
    (seen,) = observe(np.stack(moved)).things
    assert (seen.shape, seen.motion) == ("square", None)


def test_a_lump_is_no_shape() -> None:
    """An ellipse of 1 to 2: a circle stretched over the width."""
    video = shown(thing(shape="circle", radius=0.2)).repeat(2, axis=2)[:, :, 32:96]
    (seen,) = observe(video).things
    assert (seen.colour, seen.shape) == ("green", None)


def test_a_thing_between_two_colours_is_the_nearer_one_and_a_foreign_one_unclear() -> None:
    video = shown(thing())
    green = np.array([20, 160, 60])
    assert (video[0] == green).all(axis=-1).any()
    for colour, word in (((60, 140, 60), "green"), ((90, 255, 90), None)):
        painted = np.where((video == green).all(axis=-1, keepdims=True), np.uint8(colour), video)
        (seen,) = observe(painted).things
        assert seen.colour == word
