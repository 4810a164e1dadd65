"""Sums over videos, the contact sheet, and what the judge takes from prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from stepvideo_eval.adherence import Comparison, Verdict
from stepvideo_eval.prompts import held_out, parse_languages, read_prompts
from stepvideo_eval.results import by_value, confusions, marks, proportions, smoothness_summary
from stepvideo_eval.sheet import MAX_ROWS, Row, draw_sheet, stills, write_sheets
from stepvideo_eval.temporal import Smoothness
from stepvideo_world.split import is_held_out


def verdict(*values: str) -> Verdict:
    """`shape circle star`: named, then seen."""
    return Verdict(
        comparisons=tuple(
            Comparison(attribute=attribute, named=named, seen=seen)  # type: ignore[arg-type]
            for attribute, named, seen in (value.split() for value in values)
        )
    )


VERDICTS = [
    verdict("shape circle circle", "colour red red"),
    verdict("shape star circle", "colour red orange", "motion up up"),
    verdict("shape star circle", "shape circle circle", "colour blue blue"),
    verdict("shape star star"),
]


def test_proportions_count_videos() -> None:
    """The third video has two shapes, one of them wrong: one video whose shape is wrong."""
    found = proportions(VERDICTS)
    counts = {
        name: (each["successes"], each["count"]) for name, each in found["by_attribute"].items()
    }
    assert counts == {"colour": (2, 3), "shape": (2, 4), "motion": (1, 1)}
    assert (found["overall"]["successes"], found["overall"]["count"]) == (2, 4)


def test_values_count_things() -> None:
    found = by_value(VERDICTS)
    assert {value: each["rate"] for value, each in found["shape"].items()} == {
        "circle": 1.0,
        "star": pytest.approx(1 / 3),
    }
    assert found["colour"]["red"]["count"] == 2
    assert confusions(VERDICTS)[0] == {
        "attribute": "shape",
        "named": "star",
        "seen": "circle",
        "count": 2,
    }
    assert len(confusions(VERDICTS)) == 2


def test_means_leave_out_what_is_absent() -> None:
    rows = [Smoothness(0.2, 0.3, 0.2, 0.1), None, Smoothness(0.4, 0.5, 0.4, None)]
    found = smoothness_summary(rows)
    assert found["mean"] == pytest.approx(0.3)
    assert found["at_seams"] == pytest.approx(0.1)
    assert found["seam_ratio"] == pytest.approx(0.5)
    assert smoothness_summary([None])["mean"] is None


def test_marks_say_a_missing_thing_once() -> None:
    seen = verdict("count 2 1", "shape star star", "colour red pink", "shape circle nothing")
    assert marks(seen.comparisons) == [
        ("1 things", False),
        ("star", True),
        ("red: pink", False),
    ]
    assert marks(verdict("count 1 1").comparisons) == []


def row(height: int, width: int, value: int, title: str = "a red circle") -> Row:
    frames = torch.full((17, height, width, 3), value, dtype=torch.uint8)
    return Row(stills_NHWC=stills(frames), title=title, caption="red, circle")


def test_the_sheet_shows_every_still() -> None:
    video = torch.arange(17, dtype=torch.uint8)[:, None, None, None] * 10
    kept = stills(video.expand(17, 96, 112, 3))
    assert kept[:, 0, 0, 0].tolist() == [0, 30, 60, 100, 130, 160]
    sheet = draw_sheet([Row(stills_NHWC=kept, title="星星" * 30, caption="star")])
    for number, level in enumerate((0, 30, 60, 100, 130, 160)):
        place = (sheet.width - 4 - (6 - number) * 116 + 50, 50)
        assert sheet.getpixel(place) == (level, level, level)


@pytest.mark.parametrize(
    ("height", "width", "shown"), [(32, 48, (64, 96)), (544, 992, (77, 141)), (96, 96, (96, 96))]
)
def test_stills_have_a_size_to_look_at(height: int, width: int, shown: tuple[int, int]) -> None:
    assert tuple(row(height, width, 7).stills_NHWC.shape[1:3]) == shown
    assert row(height, width, 7).stills_NHWC.unique().tolist() == [7]


def test_many_videos_take_several_sheets(tmp_path: Path) -> None:
    rows = [row(16, 16, number % 200) for number in range(MAX_ROWS + 1)]
    paths = write_sheets(rows, tmp_path)
    assert [path.name for path in paths] == ["sheet-01.png", "sheet-02.png"]
    with Image.open(paths[0]) as first, Image.open(paths[1]) as second:
        assert first.height > 10 * second.height
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet-01.png", "sheet-02.png"]


def test_held_out_prompts_are_held_out_and_understood() -> None:
    prompts = held_out(40, parse_languages("en, zh"), 3, "tiny")
    assert [each.language for each in prompts] == ["en"] * 40 + ["zh"] * 40
    for each in prompts:
        assert each.named is not None
        (thing,) = each.named.things
        assert thing.colour and thing.shape and thing.motion
        assert is_held_out((thing.colour, thing.shape, thing.motion))
    assert held_out(10, ["en"], 3, "tiny") == prompts[:10]


def test_prompt_files(tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_text("\ufeffa red circle moves right\r\n# no\r\n  a fox  \n", encoding="utf-8")
    circle, fox = read_prompts(path)
    assert circle.text == "a red circle moves right" and circle.named is not None
    assert (fox.text, fox.named, fox.language) == ("a fox", None, None)
    assert fox.why_not is not None and "fox" in fox.why_not
