"""Clips encoded in advance: the transformer learns from posteriors, drawn anew at every step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stepvideo_core.checkpoints.files import atomic_path
from stepvideo_core.models.vae import VideoVAE
from stepvideo_training.clips import ClipSource
from stepvideo_training.randomness import SampleRandom

# In place of a step: the clips are drawn before the first.
_STREAM = 1


@dataclass(frozen=True)
class LatentSet:
    """mean, std: float32 [N, F, C, h, w]; captions: several per clip."""

    mean_NFCHW: Tensor
    std_NFCHW: Tensor
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.captions)


def transformer_samples(seed: int, count: int) -> list[SampleRandom]:
    """The samples whose clips the transformer learns from, or is watched with: one set each."""
    return [SampleRandom(seed, _STREAM, index) for index in range(count)]


@torch.no_grad()
def encode_clips(
    vae: VideoVAE,
    clips: ClipSource,
    samples: Sequence[SampleRandom],
    *,
    held_out: bool,
    device: torch.device,
    cache: Path,
    advance: Callable[[int, int], None],
) -> LatentSet:
    """Posteriors of the clips of some samples.

    cache: where they are kept for the next start; taken from there if weights and samples are the
    same. advance: called with the clips done and in all.
    """
    fingerprint = _fingerprint(vae, samples, held_out)
    kept = _read(cache, fingerprint)
    if kept is not None:
        return kept
    draw = clips.held_out_clip if held_out else clips.training_clip
    means, stds, captions = [], [], []
    for done, sample in enumerate(samples, 1):
        clip = draw(sample)
        posterior = vae.encode(clip.video_TCHW[None].to(device))
        means.append(posterior.mean.float().cpu())
        stds.append(posterior.std.float().cpu())
        captions.append(clip.captions)
        advance(done, len(samples))
    result = LatentSet(torch.cat(means), torch.cat(stds), tuple(captions))
    _write(cache, fingerprint, result)
    return result


def _fingerprint(vae: VideoVAE, samples: Sequence[SampleRandom], held_out: bool) -> str:
    digest = hashlib.sha256(f"{samples[0]} {len(samples)} {held_out}".encode())
    for name, parameter in sorted(vae.encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(parameter.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _write(path: Path, fingerprint: str, latents: LatentSet) -> None:
    texts = json.dumps(latents.captions, ensure_ascii=False)
    tensors = {"mean": latents.mean_NFCHW, "std": latents.std_NFCHW}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={"fingerprint": fingerprint, "captions": texts})


def _read(path: Path, fingerprint: str) -> LatentSet | None:
    """What was kept, unless it is of another encoder, or damaged and so to be made again."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            head = file.metadata() or {}
            if head.get("fingerprint") != fingerprint:
                return None
            captions = tuple(tuple(texts) for texts in json.loads(head["captions"]))
            return LatentSet(file.get_tensor("mean"), file.get_tensor("std"), captions)
    except (SafetensorError, OSError, ValueError):
        return None
