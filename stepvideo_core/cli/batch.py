"""`stepvideo run` with several prompts or seeds: one after the other, resumed where it stopped."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from stepvideo_core.batch import VIDEO_ERRORS, encode_in_groups
from stepvideo_core.cli.console import (
    ProgressObserver,
    complain,
    print_json,
    print_table,
    stderr,
)
from stepvideo_core.cli.finish import decode_to_file, latents_path
from stepvideo_core.cli.generate import Finishing, generate_file
from stepvideo_core.cli.jobs import BatchPlan, Job, State, raw_bytes
from stepvideo_core.cli.report import backends_used, report_needs
from stepvideo_core.errors import InvalidRequest, RunInterrupted, StepVideoError
from stepvideo_core.fingerprint import fingerprint
from stepvideo_core.latents_file import read_latents
from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_core.progress import StageLog
from stepvideo_core.text import TextEmbedding
from stepvideo_core.video import check_output

_EXIT_FAILED = 1


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of a job: `done`, `present` (by an earlier run), or `failed` with its error."""

    job: Job
    status: str
    seconds: float = 0.0
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        return self.job.as_json() | {
            "status": self.status,
            "seconds": self.seconds,
            "error": self.error,
        }


def report_batch_plan(
    pipe: StepVideoPipeline, plan: BatchPlan, memory_limit: str | None, json_output: bool
) -> None:
    """What a batch would do, and whether its largest video fits (exit code 2 if not)."""
    extra = {"jobs": [job.as_json() | {"state": job.state.value} for job in plan.jobs]}
    if not json_output:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("#", "prompt", "seed", "state", "output"):
            table.add_column(column, overflow="fold")
        for job in plan.jobs:
            row = (str(job.index), _short(job.prompt), str(job.seed), job.state.value)
            table.add_row(*map(escape, (*row, str(job.output))))
        print_table(table)
    report_needs(pipe, plan.largest, memory_limit, json_output, extra)


def run_jobs(
    pipe: StepVideoPipeline,
    plan: BatchPlan,
    finishing: Finishing,
    *,
    truncate_prompt: bool,
    keep_latents: bool,
    json_output: bool,
) -> None:
    """Run what is left to do, and sum up; exits with 1 if a video failed.

    A video that fails is reported and the next one follows. Ctrl-C ends the batch.
    """
    started = time.perf_counter()
    results: list[Result] = []
    with ProgressObserver() as observer:
        text_log = StageLog(pipe.device, observer)
        todo = [job.texts for job in plan.jobs if job.state is State.todo]
        encoded = encode_in_groups(pipe, todo, text_log)
        for job in plan.jobs:
            if job.state is State.present:
                results.append(Result(job=job, status="present"))
                continue
            try:
                text = next(encoded) if job.state is State.todo else None
                stderr().print(
                    f"[bold]{job.index}/{len(plan.jobs)}[/] {escape(_short(job.prompt))}, seed "
                    f"{job.seed}",
                    soft_wrap=True,
                )
                log = StageLog(pipe.device, observer)
                results.append(_run(pipe, job, finishing, text, log, truncate_prompt, keep_latents))
            except (KeyboardInterrupt, RunInterrupted) as error:
                finished = sum(result.status != "failed" for result in results)
                raise RunInterrupted(
                    f"interrupted at video {job.index} of {len(plan.jobs)}, {finished} are "
                    f"finished: run the same command again to go on"
                    f"{f' ({error})' if str(error) else ''}"
                ) from None
    _sum_up(pipe, results, time.perf_counter() - started, json_output)


def _run(
    pipe: StepVideoPipeline,
    job: Job,
    finishing: Finishing,
    text: list[TextEmbedding] | None,
    log: StageLog,
    truncate_prompt: bool,
    keep_latents: bool,
) -> Result:
    started = time.perf_counter()
    error: str | None = None
    try:
        if job.state is State.latents:
            _decode(pipe, job, finishing, log, keep_latents)
        else:
            settings, _ = pipe.settings(**job.request, truncate_prompt=truncate_prompt)
            if fingerprint(pipe, settings, finishing.as_json()) != job.fingerprint:
                raise InvalidRequest("its image or the model's files changed since the batch began")
            # The disk may have filled up since all outputs were checked.
            raw = raw_bytes(job.output, settings)
            check_output(job.output, raw, denoise=finishing.denoise_filter)
            generate_file(
                pipe, settings, job.output, log, finishing, text=text, keep_latents=keep_latents
            )
    except RunInterrupted:
        raise
    except VIDEO_ERRORS as failure:
        error = str(failure)
        if not isinstance(failure, StepVideoError):
            error = f"{type(failure).__name__}: {error}"
            traceback.print_exception(failure)  # perhaps a bug of ours, which must not be hidden
        complain(f"video {job.index} (line {job.line}): {error}")
    status = "done" if error is None else "failed"
    return Result(job=job, status=status, seconds=time.perf_counter() - started, error=error)


def _decode(
    pipe: StepVideoPipeline, job: Job, finishing: Finishing, log: StageLog, keep_latents: bool
) -> None:
    path = latents_path(job.output)
    latents, record = read_latents(path)
    decode_to_file(
        pipe,
        latents,
        job.output,
        record,
        log,
        fps=record["settings"]["fps"],
        crop=finishing.crop,
        denoise_filter=finishing.denoise_filter,
    )
    if not keep_latents:
        path.unlink(missing_ok=True)


def _sum_up(
    pipe: StepVideoPipeline, results: list[Result], seconds: float, json_output: bool
) -> None:
    counts = {
        status: sum(result.status == status for result in results)
        for status in ("done", "present", "failed")
    }
    if json_output:
        print_json(
            {
                "results": [result.as_json() for result in results],
                **counts,
                "plan": pipe.plan.as_json(),
                "timings": {"total": seconds},
            }
        )
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("#", "prompt", "seed", "state", "time", "output"):
            table.add_column(column, overflow="fold")
        for result in results:
            job, failed = result.job, result.status == "failed"
            table.add_row(
                str(job.index),
                escape(_short(job.prompt)),
                str(job.seed),
                "[red]failed[/]" if failed else result.status,
                f"{result.seconds:.1f} s" if result.seconds else "",
                escape(result.error or "" if failed else str(job.output)),
            )
        print_table(table)
        stderr().print(
            f"{counts['done']} done, {counts['present']} already there, {counts['failed']} failed "
            f"in {seconds:.1f} s with {backends_used(pipe)}"
        )
    if counts["failed"]:
        raise typer.Exit(_EXIT_FAILED)


def _short(prompt: str) -> str:
    return prompt if len(prompt) <= 40 else f"{prompt[:39]}…"
