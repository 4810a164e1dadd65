"""Prompt files: one prompt per line, or JSON Lines with settings of their own.

In both kinds blank lines and lines that begin with `#` are skipped. In a text file a backslash in
front of `#` makes it part of the prompt.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from typing_extensions import Required

from stepvideo_core.errors import InvalidRequest
from stepvideo_core.request import Choices

JSON_LINES = (".jsonl", ".ndjson")
_SHOWN = 5

_NUMBER, _INTEGER, _TEXT = (int, float), (int,), (str,)
_KEYS: dict[str, tuple[type, ...]] = {
    "prompt": _TEXT,
    "negative_prompt": _TEXT,
    "positive_suffix": _TEXT,
    "frames": _INTEGER,
    "height": _INTEGER,
    "width": _INTEGER,
    "steps": _INTEGER,
    "cfg_scale": _NUMBER,
    "time_shift": _NUMBER,
    "image": _TEXT,
    "motion_score": _NUMBER,
    "seed": _INTEGER,
    "seeds": (list,),
    "output": _TEXT,
}
_OURS = {"seed", "seeds", "output"}
_WANTED = {_TEXT: "a text", _INTEGER: "an integer", _NUMBER: "a number", (list,): "a list"}


class Request(Choices, total=False):
    """One video of a batch: its prompt, and what it sets otherwise than the model."""

    prompt: Required[str]


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """One line of a prompt file: what it asks for, without a seed.

    seeds: its own, None where the file leaves them to the command. output: its own name.
    """

    line: int
    request: Request
    seeds: tuple[int, ...] | None = None
    output: str | None = None


def read_prompts(path: Path) -> list[PromptLine]:
    """The requests of a prompt file; `.jsonl` and `.ndjson` hold JSON objects, others plain text.

    A JSON line has `prompt` and any of the settings of `stepvideo run`, `image` (relative to the
    file's folder), `seed` or `seeds`, and `output`. Raises InvalidRequest that names every faulty
    line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"--prompt-file {path} cannot be read: {error}") from error
    found: list[PromptLine] = []
    faults: list[str] = []
    for number, line in _lines(text):
        try:
            if path.suffix.lower() in JSON_LINES:
                found.append(_parse(number, line, path.parent))
            else:
                prompt = line[1:] if line.startswith("\\#") else line
                found.append(PromptLine(line=number, request={"prompt": prompt}))
        except InvalidRequest as error:
            faults.append(f"line {number}: {error}")
    if faults:
        raise InvalidRequest(f"--prompt-file {path}, {listed(faults)}")
    if not found:
        raise InvalidRequest(f"--prompt-file {path} holds no prompt")
    return found


def listed(faults: list[str]) -> str:
    """The first few faults, and how many more there are."""
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "; ".join(faults[:_SHOWN]) + more


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Only line feeds end a line: others may stand inside a prompt.
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if line and not line.startswith("#"):
            yield number, line


def _parse(number: int, line: str, folder: Path) -> PromptLine:
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"not valid JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(values, dict):
        raise InvalidRequest(f"holds a JSON {type(values).__name__}, not an object")
    for key, value in values.items():
        kinds = _KEYS.get(key)
        if kinds is None:
            raise InvalidRequest(f"unknown key {key!r}; there are {', '.join(_KEYS)}")
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise InvalidRequest(f"{key} is {json.dumps(value)}, but must be {_WANTED[kinds]}")
    if "prompt" not in values:
        raise InvalidRequest("has no prompt")
    request: dict[str, Any] = {key: value for key, value in values.items() if key not in _OURS}
    if "image" in request:
        request["image"] = folder / Path(request["image"]).expanduser()
    return PromptLine(
        line=number,
        request=cast("Request", request),
        seeds=_seeds(values),
        output=values.get("output"),
    )


def _seeds(values: dict[str, Any]) -> tuple[int, ...] | None:
    if "seed" in values and "seeds" in values:
        raise InvalidRequest("has both seed and seeds; give one of them")
    if "seed" in values:
        return (values["seed"],)
    seeds = values.get("seeds")
    if seeds is None:
        return None
    if not seeds or any(type(seed) is not int for seed in seeds):
        raise InvalidRequest(f"seeds is {json.dumps(seeds)}, but must be a list of integers")
    return tuple(seeds)
