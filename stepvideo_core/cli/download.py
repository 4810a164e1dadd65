"""`stepvideo download`: a model from a hub, to be run later or elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stepvideo_core.cli import options
from stepvideo_core.cli.console import ProgressObserver, note, print_json, stderr
from stepvideo_core.cli.options import HubChoice
from stepvideo_core.errors import InvalidRequest


def download(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="stepfun-ai/stepvideo-t2v, -turbo, -ti2v, or any OWNER/NAME."
        ),
    ],
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="Default: stepvideo's cache, where `run` looks."),
    ] = None,
    hub: options.HubOption = HubChoice.huggingface,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare what is there with the hub's checksums as well."),
    ] = False,
    json_output: options.JsonOption = False,
) -> None:
    """Fetch a checkpoint, and the VAE and text encoders that a Turbo shares with its base model.

    Run it again to go on after an interruption. Every file is compared with the hub's checksum.
    """
    from stepvideo_core.checkpoints.shared import base_name
    from stepvideo_core.hub import download_model, is_model_id, models_folder

    if not is_model_id(model):
        raise InvalidRequest(
            f"{model!r} is not the id of a model, such as stepfun-ai/stepvideo-t2v"
        )
    target = folder or models_folder(model)
    parts = [{"model": model, "folder": str(target)}]
    stderr().print(f"fetching {model} into {target}", soft_wrap=True)
    with ProgressObserver() as observer:
        missing = download_model(model, target, hub=hub.value, verify=verify, observer=observer)
        base = base_name(model)
        if missing and base is not None:
            beside = models_folder(base) if folder is None else folder.parent / Path(base).name
            note(f"{model} has no {', '.join(missing)}: they come from {base}, into {beside}")
            download_model(
                base, beside, hub=hub.value, folders=missing, verify=verify, observer=observer
            )
            parts.append({"model": base, "folder": str(beside)})
    if json_output:
        print_json({"output": str(target), "hub": hub.value, "parts": parts})
        return
    stderr().print(str(target), soft_wrap=True)
