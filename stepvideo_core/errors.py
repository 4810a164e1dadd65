"""Errors that a user can act on.

Every message is one sentence or two: what is wrong, where (file, key, op, flag), what to do.
The command line prints the message of a `StepVideoError` without a traceback and exits with 2;
any other exception is a bug of ours and keeps its traceback.
"""

from __future__ import annotations


class StepVideoError(Exception):
    """A mistake or a circumstance that the user can mend; the message says how."""


class InvalidRequest(StepVideoError):
    """A setting of a generation request is out of range or contradicts another."""


class CheckpointError(StepVideoError):
    """A checkpoint file is missing, broken, or does not fit the model it claims to be."""


class DownloadFailed(StepVideoError):
    """A model cannot be fetched from a hub, or what arrived is damaged."""


class BackendUnavailable(StepVideoError):
    """A backend was named but is unknown, failed to load, or cannot work on this machine."""


class NoImplementation(StepVideoError):
    """No implementation of an operator accepts a call site under the given policy."""


class ContractMismatch(StepVideoError):
    """An implementation's parameters differ from the contract it claims to fulfil."""


class OutputError(StepVideoError):
    """The output cannot be written: format unknown, folder missing, no permission, disk full."""


class NotEnoughMemory(StepVideoError):
    """A stage needs more memory than the device, or the user's limit, allows."""


class NumericalFailure(StepVideoError):
    """The model produced NaN or infinity, so going on would waste hours on a black video."""


class RunInterrupted(StepVideoError):
    """A run ended early, after work that was saved; the message says how to resume."""
