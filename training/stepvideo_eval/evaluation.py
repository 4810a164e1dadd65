"""One evaluation from beginning to end: make, measure, and write the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from stepvideo_core.checkpoints.bundled import model_name
from stepvideo_core.checkpoints.files import atomic_path
from stepvideo_core.errors import InvalidRequest
from stepvideo_core.fingerprint import weights_digest
from stepvideo_core.pipeline import StepVideoPipeline
from stepvideo_core.progress import StageLog
from stepvideo_core.record import versions
from stepvideo_core.video import check_output
from stepvideo_core.video.record import to_json
from stepvideo_eval.clips import Clip, Size, Unusable, held_out_clips, read_clip, video_files
from stepvideo_eval.generate import VIDEOS, Generation, Sample
from stepvideo_eval.novelty import compare, control_thumbnails, drawn_thumbnails, learnt_thumbnails
from stepvideo_eval.reconstruct import reconstruct, summary
from stepvideo_eval.request import (
    HELD_OUT,
    EvalRequest,
    prompted_samples,
    shared_settings,
    unprompted_samples,
    usual_settings,
)
from stepvideo_eval.results import (
    Measured,
    adherence,
    diversity_summary,
    measure,
    smoothness_summary,
)
from stepvideo_eval.sheet import write_sheets

FORMAT = 1
REPORT = "report.json"
WHY_NOT_JUDGED = (
    "the judge sees coloured shapes that move, so it judges only prompts of the world's grammar; "
    "look at the contact sheet and the videos"
)


class Evaluation:
    """Carries out a request with a pipeline."""

    def __init__(
        self,
        pipe: StepVideoPipeline,
        request: EvalRequest,
        log: StageLog,
        note: Callable[[str], None],
    ) -> None:
        """note: told what the user should know.

        Raises before anything is computed: InvalidRequest, OutputError, NotEnoughMemory.
        """
        self.pipe, self.request, self.log, self.note = pipe, request, log, note
        self.usual, notes = usual_settings(pipe, request)
        for text in notes:
            note(text)
        self.prompted = prompted_samples(pipe, request)
        self.unprompted = unprompted_samples(pipe, request)
        check_output(request.output / VIDEOS / "video.mp4")
        if self.prompted or self.unprompted:
            pipe.check_memory(self.usual)
        self._weights = weights_digest(pipe.layout)

    def run(self) -> dict[str, Any]:
        """Make and measure everything; returns the report, which is also in `report.json`."""
        report = self._header()
        if self.prompted:
            report["generation"] = self._generation()
        if self.unprompted:
            report["unconditional"] = self._unconditional()
        if self.request.reconstruction is not None:
            report["reconstruction"] = self._reconstruction(self.request.reconstruction)
        report["stages"] = [stage.as_json() for stage in self.log.reports]
        with atomic_path(self.request.output / REPORT) as temporary:
            temporary.write_text(to_json(report, indent=2) + "\n", encoding="utf-8")
        return report

    @property
    def num_latents(self) -> int:
        """How many videos have been sampled, by this call or an earlier one."""
        return sum(
            self._plan(samples, folder).latents_path(sample).exists()
            for samples, folder in (
                (self.prompted, self.request.output),
                (self.unprompted, self._unprompted_folder),
            )
            for sample in samples
        )

    @property
    def _unprompted_folder(self) -> Path:
        return self.request.output / "unconditional"

    @property
    def _size(self) -> Size:
        usual = self.usual
        return Size(num_frames=usual.num_frames, height=usual.height, width=usual.width)

    def _header(self) -> dict[str, Any]:
        pipe = self.pipe
        return {
            "format": FORMAT,
            "model": model_name(pipe.layout.root),
            "fingerprint": self._weights,
            "trained": pipe.layout.is_trained,
            "world": self.request.world,
            "seed": self.request.seed,
            "seeds_per_prompt": self.request.seeds,
            "dtype": str(pipe.dtype).removeprefix("torch."),
            "numerics": pipe.numerics,
            "device": str(pipe.device),
            "plan": pipe.plan.as_json(),
            "versions": versions(),
        }

    def _plan(self, samples: list[Sample], folder: Path) -> Generation:
        return Generation(self.pipe, samples, folder, self._weights)

    def _measured(self, samples: list[Sample], folder: Path) -> list[Measured]:
        plan = self._plan(samples, folder)
        done = len(samples) - len(plan.missing())
        if done:
            self.note(f"{done} of {len(samples)} videos were sampled by an earlier call")
        plan.sample_all(self.log)
        chunk = self.pipe.config.vae.frame_chunk
        return [
            measure(sample, video, self._relative(plan.video_path(sample)), chunk)
            for sample, video in plan.decode_all(self.log)
        ]

    def _common(self, samples: list[Sample], folder: Path) -> tuple[list[Measured], dict[str, Any]]:
        results = self._measured(samples, folder)
        sheets = write_sheets([each.as_row() for each in results], folder)
        return results, {
            "settings": shared_settings(samples),
            "videos": len(results),
            "sheets": [self._relative(path) for path in sheets],
            "smoothness": smoothness_summary(each.smoothness for each in results),
            "diversity": diversity_summary(results),
        }

    def _generation(self) -> dict[str, Any]:
        results, common = self._common(self.prompted, self.request.output)
        judged = adherence(results)
        return {
            **common,
            "adherence": judged,
            "not_judged_because": WHY_NOT_JUDGED if judged["not_judged"] else None,
            "results": [each.as_json() for each in results],
        }

    def _unconditional(self) -> dict[str, Any]:
        results, common = self._common(self.unprompted, self._unprompted_folder)
        world, count = self.request.world, self.request.references
        training = self.pipe.layout.settings.get("training")
        references = learnt_thumbnails(training, count) if training else None
        source = "drawn" if references is None else "learnt"
        if references is None:
            references = drawn_thumbnails(count, world, self.request.seed, self._size)
        seen = 0
        with self.log.stage("compare", count, "clips") as advance:

            def counted() -> Iterator[Tensor]:
                nonlocal seen
                for reference in references:
                    yield reference
                    seen += 1
                    advance(1)

            novelty = compare(
                [each.thumbnail for each in results],
                control_thumbnails(world, self._size),
                counted(),
            )
        novelty = {"references": seen, "references_are": source, **novelty}
        return {**common, "novelty": novelty, "results": [each.as_json() for each in results]}

    def _reconstruction(self, source: str) -> dict[str, Any]:
        clips, total = self._clips(source)
        results, skipped = [], []
        with (
            self.pipe.residency.borrowed("vae"),
            self.log.stage("reconstruct", total, "clips") as advance,
        ):
            for clip in clips:
                if isinstance(clip, Unusable):
                    self.note(f"skipped: {clip.reason}")
                    skipped.append(clip.reason)
                else:
                    results.append(reconstruct(self.pipe, clip))
                advance(1)
        if not results:
            raise InvalidRequest(f"none of the {total} videos of {source} can be used")
        folder = self.request.output / "reconstruction"
        sheets = write_sheets([each.as_row() for each in results], folder)
        return {
            "source": source,
            "skipped": skipped,
            "sheets": [self._relative(path) for path in sheets],
            **summary(results),
            "results": [each.as_json() for each in results],
        }

    def _clips(self, source: str) -> tuple[Iterator[Clip | Unusable], int]:
        """The clips of a source, one at a time, and their number."""
        if source == HELD_OUT:
            world, seed, count = self.request.world, self.request.seed, self.request.clips
            return iter(held_out_clips(count, seed, world, self._size)), count
        files = video_files(Path(source))
        vae, length = self.pipe.config.vae, self.usual.num_frames
        return (read_clip(path, vae, length) for path in files), len(files)

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.request.output).as_posix()
