"""Training configs in TOML, read without room for typing errors."""

from __future__ import annotations

import dataclasses
import math
import sys
import typing
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from stepvideo_core.config import PRESETS
from stepvideo_core.errors import InvalidRequest
from stepvideo_training.settings import TrainingConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_T = TypeVar("_T")
_SHIPPED = files("stepvideo_training") / "configs"


def load_config(name: str) -> TrainingConfig:
    """The config of a file, or a shipped one by its name without `.toml`.

    Raises InvalidRequest that names the file and the key for everything that is not as the
    dataclasses of `settings` say.
    """
    text, where = _read(name)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"{where} is not valid TOML: {error}") from None
    config = from_table(TrainingConfig, table, where)
    if config.model not in PRESETS:
        raise InvalidRequest(
            f"{where}: model {config.model!r} is none of {', '.join(sorted(PRESETS))}"
        )
    return config


def shipped_configs() -> list[str]:
    """Names that `load_config` knows without a path."""
    names = (entry.name for entry in _SHIPPED.iterdir())
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def from_table(kind: type[_T], table: Mapping[str, Any], where: str) -> _T:
    """A dataclass from a TOML table; nested dataclasses and tuples of them from nested tables."""
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in names:
            raise InvalidRequest(f"{where}: unknown key {key!r}; known are {', '.join(names)}")
        values[key] = _value(hints[key], value, f"{where}: {key}")
    return kind(**values)


def _value(wanted: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(wanted):
        if not isinstance(value, dict):
            raise InvalidRequest(f"{where} is {value!r}, but must be a table")
        return from_table(typing.cast("type[Any]", wanted), value, where)
    if get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise InvalidRequest(f"{where} is {value!r}, but must be a list")
        item = get_args(wanted)[0]
        return tuple(_value(item, entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            choices = ", ".join(map(repr, get_args(wanted)))
            raise InvalidRequest(f"{where} is {value!r}, but must be one of {choices}")
        return value
    if wanted is float:
        if type(value) not in (int, float) or not math.isfinite(value):
            raise InvalidRequest(f"{where} is {value!r}, but must be a finite number")
        return float(value)
    if type(value) is not wanted:
        raise InvalidRequest(f"{where} is {value!r}, but must be of type {wanted.__name__}")
    if wanted is int and value < 0:
        raise InvalidRequest(f"{where} is {value}, but must not be negative")
    return value


def _read(name: str) -> tuple[str, str]:
    path = Path(name).expanduser()
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8"), str(path)
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"{path} cannot be read: {error}") from error
    if name in shipped_configs():
        return (_SHIPPED / f"{name}.toml").read_text(encoding="utf-8"), f"config {name!r}"
    raise InvalidRequest(
        f"--config {name}: there is no such file; shipped are {', '.join(shipped_configs())}"
    )
