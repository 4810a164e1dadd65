"""File names of outputs: from the prompt alone, or from a template for many videos."""

from __future__ import annotations

from pathlib import Path
from string import Formatter

from stepvideo_core.errors import InvalidRequest

DEFAULT_TEMPLATE = "outputs/{index:04}-{slug}-{seed}.mp4"
"""The number has a fixed width, so that names stay when prompts are added."""

FIELDS = ("index", "line", "slug", "seed")


def slug(prompt: str) -> str:
    """The first words of a prompt, safe in a file name anywhere."""
    words = "".join(letter if letter.isalnum() else " " for letter in prompt).split()
    text = "-".join(words)[:48].rstrip("-") or "video"
    # File systems limit names in bytes, and a Chinese character takes three.
    while len(text.encode()) > 120:
        text = text[:-1]
    return text


def default_output(prompt: str, seed: int) -> Path:
    """outputs/<first words of the prompt>-<seed>.mp4."""
    return Path("outputs") / f"{slug(prompt)}-{seed}.mp4"


def fill_template(template: str, *, index: int, line: int, prompt: str, seed: int) -> Path:
    """The output that a template such as `out/{index:03}-{slug}-{seed}.mp4` names.

    Raises InvalidRequest for an unknown field or a broken template.
    """
    values = {"index": index, "line": line, "slug": slug(prompt), "seed": seed}
    try:
        for _, field, _, _ in Formatter().parse(template):
            if field is not None and field not in FIELDS:
                raise InvalidRequest(
                    f"output {template!r} has a field {{{field}}}; there are "
                    f"{', '.join(f'{{{name}}}' for name in FIELDS)}"
                )
        return Path(template.format(**values)).expanduser()
    except (ValueError, KeyError, IndexError) as error:
        raise InvalidRequest(f"output {template!r} is no template: {error}") from None
