"""What every command does about errors: one sentence for the user's, a traceback for ours."""

from __future__ import annotations

import functools
import signal
import types
from collections.abc import Callable
from typing import Any, TypeVar, cast

import typer

from stepvideo_core.cli.console import complain
from stepvideo_core.errors import RunInterrupted, StepVideoError

_C = TypeVar("_C", bound=Callable[..., Any])
EXIT_USER, EXIT_INTERRUPTED, EXIT_TERMINATED = 2, 130, 143


def guarded(command: _C) -> _C:
    """Wrap a command so that it exits with 2 on a user's mistake and 130 on Ctrl-C."""

    @functools.wraps(command)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        previous = signal.signal(signal.SIGTERM, _terminate)
        try:
            return command(*args, **kwargs)
        except RunInterrupted as error:
            complain(str(error))
            raise typer.Exit(EXIT_INTERRUPTED) from None
        except StepVideoError as error:
            complain(str(error))
            raise typer.Exit(EXIT_USER) from None
        except KeyboardInterrupt:
            complain("interrupted; nothing was written")
            raise typer.Exit(EXIT_INTERRUPTED) from None
        finally:
            signal.signal(signal.SIGTERM, previous)

    return cast("_C", wrapper)


def _terminate(signum: int, frame: types.FrameType | None) -> None:
    # Unwinds the stack, so that temporary files are removed as on any other exit.
    raise SystemExit(EXIT_TERMINATED)
