"""The words of both languages: for every value of an attribute, the phrases that name it.

A phrase names one value only, and means the same wherever it stands. The first phrase of each list
is the plainest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from stepvideo_world.scene import (
    Colour,
    Direction,
    Ground,
    GroundColour,
    Motion,
    Shape,
    Size,
    Speed,
)

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


@dataclass(frozen=True, kw_only=True)
class Words:
    """The vocabulary of one language.

    motions: whole predicates, verb and direction. grounds: phrases with `{}` for the colour;
    gradients: with `{top}` and `{bottom}`. fillers: what carries no meaning.
    """

    shapes: Mapping[Shape, Sequence[str]]
    colours: Mapping[Colour, Sequence[str]]
    motions: Mapping[Motion, Sequence[str]]
    speeds: Mapping[Speed, Sequence[str]]
    sizes: Mapping[Size, Sequence[str]]
    ground_colours: Mapping[GroundColour, Sequence[str]]
    grounds: Sequence[str]
    gradients: Sequence[str]
    conjunctions: Sequence[str]
    fillers: Sequence[str]

    def ground_phrases(self, ground: Ground) -> list[str]:
        """Every phrase for a ground."""
        if ground.is_plain:
            return [
                phrase.format(word)
                for phrase in self.grounds
                for word in self.ground_colours[ground.top]
            ]
        return [
            phrase.format(top=top, bottom=bottom)
            for phrase in self.gradients
            for top in self.ground_colours[ground.top]
            for bottom in self.ground_colours[ground.bottom]
        ]


_EN_WAYS: Mapping[Direction, Sequence[str]] = {
    "right": ("right", "to the right", "from left to right"),
    "left": ("left", "to the left", "from right to left"),
    "up": ("up", "upwards", "from bottom to top"),
    "down": ("down", "downwards", "from top to bottom"),
    "up-right": ("to the upper right", "up and to the right", "towards the top right corner"),
    "up-left": ("to the upper left", "up and to the left", "towards the top left corner"),
    "down-right": (
        "to the lower right",
        "down and to the right",
        "towards the bottom right corner",
    ),
    "down-left": ("to the lower left", "down and to the left", "towards the bottom left corner"),
}
_EN_VERBS = ("moves", "moving", "is moving", "slides", "sliding", "drifts", "drifting", "glides")

ENGLISH = Words(
    shapes={
        "circle": ("circle", "disc", "ball"),
        "square": ("square", "box"),
        "triangle": ("triangle",),
        "star": ("star", "five-pointed star"),
    },
    colours={
        "red": ("red",),
        "orange": ("orange",),
        "yellow": ("yellow",),
        "green": ("green",),
        "cyan": ("cyan", "turquoise"),
        "blue": ("blue",),
        "purple": ("purple", "violet"),
        "pink": ("pink",),
    },
    motions={
        **{
            direction: [f"{verb} {way}" for verb in _EN_VERBS for way in ways]
            for direction, ways in _EN_WAYS.items()
        },
        "stay": ("stays still", "staying still", "stays in place", "does not move", "is at rest"),
        "rotate": ("rotates", "rotating", "turns", "spins", "is spinning"),
        "grow": ("grows", "growing", "gets bigger", "is getting larger"),
        "shrink": ("shrinks", "shrinking", "gets smaller", "is getting smaller"),
        "bounce": ("bounces", "bouncing", "bounces up and down", "jumps up and down"),
    },
    speeds={
        "slow": ("slowly", "gently"),
        "normal": ("steadily",),
        "fast": ("quickly", "fast"),
    },
    sizes={
        "small": ("small", "little"),
        "medium": ("medium-sized", "medium"),
        "large": ("large", "big"),
    },
    ground_colours={
        "black": ("black",),
        "white": ("white",),
        "gray": ("gray", "grey"),
        "brown": ("brown",),
    },
    grounds=(
        "on a {} background",
        "in front of a {} background",
        "against a plain {} background",
        "over a {} screen",
    ),
    gradients=(
        "on a background that fades from {top} to {bottom}",
        "in front of a {top} to {bottom} gradient",
    ),
    conjunctions=("and", "while"),
    fillers=("a", "an", "the", "one", "video of", "there is", "that", "another"),
)

_ZH_WAYS: Mapping[Direction, Sequence[str]] = {
    "right": ("向右", "往右", "从左到右", "从左向右"),
    "left": ("向左", "往左", "从右到左", "从右向左"),
    "up": ("向上", "往上", "从下到上"),
    "down": ("向下", "往下", "从上到下"),
    "up-right": ("向右上方", "朝右上角", "往右上"),
    "up-left": ("向左上方", "朝左上角", "往左上"),
    "down-right": ("向右下方", "朝右下角", "往右下"),
    "down-left": ("向左下方", "朝左下角", "往左下"),
}
_ZH_VERBS = ("移动", "滑动", "运动", "飘动", "漂移")

CHINESE = Words(
    shapes={
        "circle": ("圆形", "圆", "圆点", "小球"),
        "square": ("正方形", "方块"),
        "triangle": ("三角形",),
        "star": ("星星", "五角星"),
    },
    colours={
        "red": ("红色", "红"),
        "orange": ("橙色", "橙"),
        "yellow": ("黄色", "黄"),
        "green": ("绿色", "绿"),
        "cyan": ("青色", "青"),
        "blue": ("蓝色", "蓝"),
        "purple": ("紫色", "紫"),
        "pink": ("粉色", "粉"),
    },
    motions={
        **{
            direction: [f"{way}{verb}" for verb in _ZH_VERBS for way in ways]
            for direction, ways in _ZH_WAYS.items()
        },
        "stay": ("静止不动", "停在原地", "保持不动", "停留在原地"),
        "rotate": ("转动", "旋转"),
        "grow": ("变大",),
        "shrink": ("变小",),
        "bounce": ("弹跳", "上下弹跳"),
    },
    speeds={"slow": ("慢慢", "缓缓"), "normal": ("平稳",), "fast": ("快速", "迅速")},
    sizes={"small": ("小",), "medium": ("中等大小的",), "large": ("大",)},
    ground_colours={
        "black": ("黑色",),
        "white": ("白色",),
        "gray": ("灰色",),
        "brown": ("棕色",),
    },
    grounds=("在{}背景上", "在{}背景前", "在纯{}的屏幕里", "在{}画面中"),
    gradients=("在从{top}渐变到{bottom}的背景上", "在{top}到{bottom}的渐变背景前"),
    conjunctions=("和", "同时"),
    fillers=("一个", "一颗", "的", "地", "正在", "有", "视频里", "另一个"),
)

VOCABULARY: Mapping[Language, Words] = {"en": ENGLISH, "zh": CHINESE}


def ground_table(words: Words, grounds: Sequence[GroundColour]) -> Iterator[tuple[str, Ground]]:
    """Every phrase for every ground made of the given colours."""
    for top in grounds:
        for bottom in grounds:
            ground = Ground(top=top, bottom=bottom)
            for phrase in words.ground_phrases(ground):
                yield phrase, ground
