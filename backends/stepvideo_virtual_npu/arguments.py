"""The arguments of one call by name, defaults filled in from the operator's own schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


class Arguments(SimpleNamespace):
    """Every parameter of the schema as an attribute: `call.query`, `call.atten_mask`."""

    def __getattr__(self, name: str) -> Any:  # for the type checker: names come from the schema
        raise AttributeError(f"the schema of this operator has no parameter {name!r}")

    def tensors(self) -> dict[str, Tensor]:
        """The tensor arguments that were given."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


def bind(schema: torch.FunctionSchema, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """The arguments as the dispatcher hands them over: trailing defaults may be left out."""
    bound = {}
    for index, parameter in enumerate(schema.arguments):
        if index < len(args):
            bound[parameter.name] = args[index]
        elif parameter.name in kwargs:
            bound[parameter.name] = kwargs[parameter.name]
        else:
            bound[parameter.name] = parameter.default_value
    return Arguments(**bound)


def has_values(tensor: Tensor) -> bool:
    """Whether a tensor's elements can be read here: not on the meta device, and not a fake."""
    return tensor.device.type == "cpu" and type(tensor) in (Tensor, torch.nn.Parameter)
