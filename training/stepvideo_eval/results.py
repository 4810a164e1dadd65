"""What was measured of the videos of one evaluation, summed up."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from stepvideo_eval.adherence import (
    ATTRIBUTES,
    NOTHING,
    Comparison,
    Verdict,
    judge,
    observe,
)
from stepvideo_eval.distance import diversity, thumbnail
from stepvideo_eval.generate import Sample
from stepvideo_eval.sheet import Row, stills
from stepvideo_eval.statistics import Proportion, mean
from stepvideo_eval.temporal import Smoothness, smoothness


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One video's figures. verdict: None if its prompt is outside of the world's grammar."""

    sample: Sample
    video: str
    verdict: Verdict | None
    smoothness: Smoothness | None
    thumbnail: Tensor
    stills_NHWC: Tensor

    def as_json(self) -> dict[str, Any]:
        """A row of the report."""
        prompt = self.sample.prompt
        return {
            "number": self.sample.number,
            "prompt": prompt.text,
            "language": prompt.language,
            "seed": self.sample.settings.seed,
            "video": self.video,
            "adherence": None if self.verdict is None else self.verdict.as_json(),
            "not_judged_because": prompt.why_not,
            "smoothness": None if self.smoothness is None else self.smoothness.as_json(),
        }

    def as_row(self) -> Row:
        """A row of the contact sheet."""
        comparisons = () if self.verdict is None else self.verdict.comparisons
        named = ", ".join(each.named for each in comparisons if each.attribute != "count")
        return Row(
            stills_NHWC=self.stills_NHWC,
            title=f"{self.sample.number} {self.sample.prompt.text}",
            caption=f"{self.sample.number} {self.sample.prompt.language or ''} {named}".rstrip(),
            marks=marks(comparisons),
        )


def marks(comparisons: Sequence[Comparison]) -> list[tuple[str, bool]]:
    """Words for the contact sheet: what is named, and what is seen instead where it is wrong.

    That a thing is missing is said once, by the count, and not of each of its attributes.
    """
    words = []
    for each in comparisons:
        if each.attribute == "count" and not each.right:
            words.append((f"{each.seen} things", False))
        elif each.attribute != "count" and each.seen != NOTHING:
            words.append((each.named if each.right else f"{each.named}: {each.seen}", each.right))
    return words


def measure(sample: Sample, video_THWC: Tensor, video: str, chunk: int) -> Measured:
    """Judge and measure one video: uint8 [T, H, W, 3]; chunk: frames decoded together."""
    named = sample.prompt.named
    return Measured(
        sample=sample,
        video=video,
        verdict=None if named is None else judge(named, observe(video_THWC.numpy())),
        smoothness=smoothness(video_THWC, chunk),
        thumbnail=thumbnail(video_THWC),
        stills_NHWC=stills(video_THWC),
    )


def adherence(results: Sequence[Measured]) -> dict[str, Any]:
    """Proportions over all judged videos, by attribute, language and named value; confusions."""
    judged = [each for each in results if each.verdict is not None]
    verdicts = [each.verdict for each in judged if each.verdict is not None]
    languages = sorted({str(each.sample.prompt.language) for each in judged})
    return {
        "judged": len(judged),
        "not_judged": len(results) - len(judged),
        **proportions(verdicts),
        "by_language": {
            language: proportions(
                each.verdict
                for each in judged
                if each.verdict is not None and each.sample.prompt.language == language
            )
            for language in languages
        },
        "by_value": by_value(verdicts),
        "confusions": confusions(verdicts),
    }


def proportions(verdicts: Iterable[Verdict]) -> dict[str, Any]:
    """{overall, by_attribute}: videos in which all is right, and in which each attribute is."""
    listed = list(verdicts)
    outcomes = [verdict.outcomes for verdict in listed]
    return {
        "overall": Proportion.of(verdict.right for verdict in listed).as_json(),
        "by_attribute": {
            name: Proportion.of(each[name] for each in outcomes if name in each).as_json()
            for name in ATTRIBUTES
            if any(name in each for each in outcomes)
        },
    }


def by_value(verdicts: Iterable[Verdict]) -> dict[str, dict[str, Any]]:
    """How often each value that prompts name is right: {shape: {circle: proportion, …}, …}."""
    trials: dict[str, dict[str, list[bool]]] = {}
    for comparison in itertools.chain.from_iterable(each.comparisons for each in verdicts):
        values = trials.setdefault(comparison.attribute, {})
        values.setdefault(comparison.named, []).append(comparison.right)
    return {
        attribute: {
            value: Proportion.of(outcomes).as_json()
            for value, outcomes in sorted(trials[attribute].items())
        }
        for attribute in ATTRIBUTES
        if attribute in trials
    }


def confusions(verdicts: Iterable[Verdict]) -> list[dict[str, Any]]:
    """What is taken for what, the most frequent first."""
    counts = Counter(
        (each.attribute, each.named, each.seen)
        for verdict in verdicts
        for each in verdict.comparisons
        if not each.right
    )
    return [
        {"attribute": attribute, "named": named, "seen": seen, "count": count}
        for (attribute, named, seen), count in counts.most_common()
    ]


def smoothness_summary(figures: Iterable[Smoothness | None]) -> dict[str, float | None]:
    """Means over videos of what `Smoothness` holds; None where no video has the figure."""
    rows = [each.as_json() for each in figures if each is not None]
    names = ("mean", "largest", "inside", "at_seams", "seam_ratio")
    return {name: mean(row[name] for row in rows if row[name] is not None) for name in names}


def diversity_summary(results: Sequence[Measured]) -> float | None:
    """Mean over prompts of the mean distance between their videos; None with one seed."""
    groups: dict[int, list[Tensor]] = {}
    for each in results:
        groups.setdefault(each.sample.group, []).append(each.thumbnail)
    found = [diversity(group) for group in groups.values()]
    return mean(each for each in found if each is not None)
