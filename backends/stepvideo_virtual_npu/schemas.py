"""Operator schemas of any release of torch_npu, read out of its wheel without installing it.

torch_npu registers its operators from string literals, so the schemas lie in its library as text.
One release can be installed at a time, and older ones want an older torch; this way calls can be
held against all of them.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from stepvideo_virtual_npu.recording import Call, TensorFacts

_LIBRARY = "torch_npu/lib/libtorch_npu.so"
_START = b"\0npu_"
_SCHEMA = re.compile(r"npu_[a-z0-9_]+(\.[A-Za-z_]+)?\(.*\) -> .+", re.DOTALL)


def read_schemas(wheel: Path) -> dict[str, str]:
    """Schema texts by `npu::name` or `npu::name.overload`; ValueError if the file has none.

    wheel: a `torch_npu-*.whl`, or an installed `libtorch_npu.so`.
    """
    if wheel.suffix == ".whl":
        with zipfile.ZipFile(wheel) as archive:
            image = archive.read(_LIBRARY)
    else:
        image = wheel.read_bytes()
    schemas = {}
    for piece in image.split(_START)[1:]:
        text = "npu_" + piece.partition(b"\0")[0].decode(errors="replace")
        if _SCHEMA.fullmatch(text):
            schemas[f"npu::{text.partition('(')[0]}"] = f"npu::{text}"
    if not schemas:
        raise ValueError(f"{wheel} holds no schemas of npu operators")
    return schemas


def differences(call: Call, older: dict[str, str]) -> list[str]:
    """Why a recorded call of the installed release would be another one, or an error, in `older`.

    Arguments left at their default need not exist there, but their default must be the same.
    """
    if call.op not in older:
        return [f"{call.op} does not exist"]
    schema = torch._C.parse_schema(older[call.op])
    theirs = {argument.name: argument for argument in schema.arguments}
    return list(_differences(call, theirs))


def _differences(call: Call, theirs: dict[str, Any]) -> Iterator[str]:
    from stepvideo_virtual_npu.device.executor import find_overload

    op = find_overload(call.op)
    assert op is not None, call.op
    positional = [argument.name for argument in op._schema.arguments if not argument.kwarg_only]
    their_order = [name for name, argument in theirs.items() if not argument.kwarg_only]
    for argument in op._schema.arguments:
        name, value = argument.name, call.arguments[argument.name]
        passed = isinstance(value, TensorFacts | list) or value != argument.default_value
        if name not in theirs:
            if passed:
                yield f"{call.op} has no parameter {name}"
            continue
        if str(theirs[name].type) != str(argument.type) and passed:
            yield f"{call.op}: {name} is {theirs[name].type}, not {argument.type}"
        if not passed and theirs[name].default_value != argument.default_value:
            yield f"{call.op}: the default of {name} is {theirs[name].default_value!r}"
    required = [name for name in positional if name in theirs]
    if their_order[: len(required)] != required:
        yield f"{call.op} takes its positional parameters in another order"
    for name, argument in theirs.items():
        if name not in call.arguments and not argument.has_default_value():
            yield f"{call.op} demands {name}"
