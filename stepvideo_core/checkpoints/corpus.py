"""The text that the small models' tokenizers are trained on: coloured shapes that move.

English and Chinese captions from a few hundred words, always the same ones in the same order, and
the official prompt suffixes and negative prompts. Sentences come as units that no piece of the
tokenizer may join: words in Chinese, whole sentences in English, where spaces do the same.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence

from stepvideo_core.config import T2V_SAMPLING, TI2V_SAMPLING

_NUM_CAPTIONS = 1500
"""Per language: enough for every word to occur many times."""

_ENGLISH: Mapping[str, Sequence[str]] = {
    "colour": (
        "red orange yellow green blue purple cyan pink white black gray grey brown dark light"
    ).split(),
    "shape": (
        "circle square triangle star ring cross diamond heart rectangle dot ball disc box shape"
    ).split(),
    "verb": "moves slides drifts glides floats travels flies rolls goes falls rises".split(),
    "gerund": "moving sliding drifting gliding floating travelling flying rolling".split(),
    "rest": ("stays still", "stays in place", "does not move", "stands still", "is at rest"),
    "change": (
        *("rotates", "rotating", "turns", "spins", "is spinning", "grows", "growing", "shrinks"),
        *("shrinking", "gets bigger", "gets smaller", "is getting larger", "bounces", "bouncing"),
        *("jumps up and down", "staying still"),
    ),
    "way": (
        *("to the left", "to the right", "upwards", "downwards", "left", "right", "up", "down"),
        *("to the upper left", "to the upper right", "to the lower left", "to the lower right"),
        *("towards the top left corner", "towards the bottom right corner", "diagonally"),
        *("from left to right", "from top to bottom", "across the frame"),
    ),
    "manner": "slowly quickly steadily gently smoothly fast".split(),
    "ground": (
        "on a {colour} background",
        "in front of a {colour} background",
        "over a {colour} screen",
        "against a plain {colour} background",
        "in the middle of the {colour} frame",
        "in the centre of a {colour} video",
    ),
    "sentence": (
        "a {colour} {shape} {verb} {way}",
        "the {colour} {shape} {verb} {manner} {way} {ground}",
        "{ground}, a {colour} {shape} {verb} {way}",
        "a {colour} {shape} {rest} {ground}",
        "a medium-sized {colour} {shape} {change} while another {colour} {shape} {verb} {way}",
        "there is a little {colour} five-pointed star that {change} on a {colour} gradient",
        "a turquoise {shape} and a violet {shape}, {ground} that fades from {colour} to {colour}",
        "a small {colour} {shape} is {gerund} {way}",
        "a large {colour} {shape}, {gerund} {manner} {way} {ground}",
        "video of one big {colour} {shape} that {verb} {way} {ground}",
        "an animation with two shapes: one {colour} {shape} {rest}, the other {verb} {way}.",
    ),
}

_CHINESE: Mapping[str, Sequence[str]] = {
    "colour": "红色 橙色 黄色 绿色 蓝色 紫色 青色 粉色 白色 黑色 灰色 棕色 深色 浅色".split(),
    "shape": (
        "圆形 圆 正方形 方块 三角形 星星 五角星 圆环 十字 菱形 心形 长方形 圆点 小球 图形"
    ).split(),
    "verb": "移动 滑动 漂移 飘动 飞行 滚动 前进 运动 飞 走".split(),
    "rest": ("静止 不动", "停 在 原地", "保持 不动", "停留 在 中间", "静静 地 待 着"),
    "change": "旋转 转动 变大 变小 弹跳 上下 弹跳".split(),
    "way": (
        *("向左", "向右", "向上", "向下", "往左", "往右", "往上", "往下"),
        *("向 左上方", "向 右上方", "向 左下方", "向 右下方", "朝 左上角", "朝 右下角"),
        *("从 左 到 右", "从 上 到 下", "沿 对角线", "横穿 画面"),
    ),
    "manner": "慢慢 缓缓 快速 平稳 轻轻 迅速".split(),
    "ground": (
        "在 {colour} 背景 上",
        "在 {colour} 背景 前",
        "在 {colour} 画面 中央",
        "在 纯 {colour} 的 屏幕 里",
    ),
    "sentence": (
        "一个 {colour} 的 {shape} {way} {verb}",
        "{ground} ， 一个 {colour} {shape} {manner} {way} {verb}",
        "{colour} 的 {shape} {ground} {manner} 地 {way} {verb} 。",
        "一个 {colour} {shape} {ground} {rest}",
        "一个 中等 大小 的 {colour} {shape} {change} ， 同时 另 一个 {shape} {way} {verb}",
        "一个 {colour} {shape} {change} ， 在 从 {colour} 渐变 到 {colour} 的 背景 上",
        "一颗 小 {shape} 是 {colour} 的 ， 它 {way} {verb}",
        "一个 大 的 {colour} {shape} 正在 {way} {verb} ， {ground}",
        "视频 里 有 两个 图形 ： {colour} {shape} {rest} ， 没有 阴影",
    ),
}


def sentences() -> Iterator[list[str]]:
    """Every sentence of the corpus as its units; joined without spaces they are the sentence."""
    for caption in _captions(_ENGLISH):
        yield [caption]
    for caption in _captions(_CHINESE):
        yield caption.split()
    for sampling in (T2V_SAMPLING, TI2V_SAMPLING):
        for text in (sampling.positive_suffix, sampling.negative_prompt):
            yield re.findall("[、。，]|[^、。，]+", text)


def _captions(words: Mapping[str, Sequence[str]]) -> Iterator[str]:
    # Of the generator only random() is used, whose sequence Python promises to keep.
    draw = random.Random(0).random

    def fill(match: re.Match[str]) -> str:
        options = words[match[1]]
        return re.sub(r"\{(\w+)\}", fill, options[int(draw() * len(options))])

    for _ in range(_NUM_CAPTIONS):
        yield re.sub(r"\{(\w+)\}", fill, "{sentence}")
