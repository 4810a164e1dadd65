"""Training and sampling mean the same: times, direction, target, schedule."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from stepvideo_core.sampling import sigma_schedule
from stepvideo_training.dit_task import interpolate, training_times
from stepvideo_training.processes import Processes
from stepvideo_training.settings import DiTStage
from tests.training.small import dit_trainer

ALONE = Processes(torch.device("cpu"))


def test_a_perfect_velocity_leads_from_noise_to_data() -> None:
    """What training calls data and noise are where the sampler's t = 1 and t = 0 are."""
    generator = torch.Generator().manual_seed(0)
    noise, data = (torch.randn(2, 3, 4, 2, 2, generator=generator) for _ in range(2))
    assert torch.equal(interpolate(noise, data, torch.zeros(2)), noise)
    assert torch.equal(interpolate(noise, data, torch.ones(2)), data)
    target = data - noise
    for steps, shift in ((1, 1.0), (7, 13.0)):
        sigmas = sigma_schedule(steps, shift)
        x = interpolate(noise, data, sigmas[0].expand(2))
        for now, then in itertools.pairwise(sigmas):
            x = x + target * (then - now)
            assert torch.allclose(x, interpolate(noise, data, then.expand(2)), atol=1e-5)
        assert torch.allclose(x, data, atol=1e-5)


@pytest.mark.parametrize("shift", [1.0, 2.0, 13.0])
def test_the_shift_is_the_samplers(shift: float) -> None:
    normal = torch.linspace(2, -2, 9)  # t falls, so the noise share rises
    plain = training_times(normal, 0.3, 1.2, 1.0)
    assert torch.allclose(plain, torch.sigmoid(0.3 + 1.2 * normal), atol=1e-6)
    u = 1 - plain
    wanted = 1 - shift * u / (1 + (shift - 1) * u)
    assert torch.allclose(training_times(normal, 0.3, 1.2, shift), wanted, atol=1e-6)
    even = sigma_schedule(4, shift)
    odds = torch.logit(1 - torch.linspace(1, 0, 5)[1:-1])
    assert torch.allclose(training_times(odds, 0.0, 1.0, shift), even[1:-1], atol=1e-5)


def test_the_model_is_fed_t_and_asked_for_data_minus_noise(tmp_path: Path) -> None:
    """The loss of a step, from the model's own call with the same t, is the task's."""
    trainer = dit_trainer(tmp_path / "dit", ALONE)
    task, seen = trainer.task, {}
    inner = task.module.forward

    def listen(noisy: torch.Tensor, times: torch.Tensor, text: object) -> torch.Tensor:
        seen.update(noisy=noisy, times=times)
        return inner(noisy, times, text)

    task.module.forward = listen  # type: ignore[method-assign, assignment]
    from stepvideo_training.randomness import LATENT, NOISE, SCENE, SampleRandom

    samples = [SampleRandom(5, 0, index) for index in range(4)]
    stage = DiTStage(batch_size=4, caption_dropout=0.0)
    loss, _ = task.loss(stage, samples)
    latents = task._training  # type: ignore[attr-defined]
    for place, sample in enumerate(samples):
        row = int(sample.numpy(SCENE).integers(6))
        shape = tuple(latents.mean_NFCHW.shape[1:])
        data = latents.mean_NFCHW[row] + latents.std_NFCHW[row] * sample.normal(shape, LATENT)
        noise, t = sample.normal(shape, NOISE), seen["times"][place]
        assert 0 < t < 1
        assert torch.allclose(seen["noisy"][place], (1 - t) * noise + t * data, atol=1e-6)
    # At the start the output is zero, so the loss is the target's own square.
    velocity = (seen["noisy"] - noise_of(samples, shape)) / seen["times"].view(-1, 1, 1, 1, 1)
    assert float(loss.detach()) == pytest.approx(float(velocity.square().mean().detach()), rel=1e-3)


def noise_of(samples: list, shape: tuple[int, ...]) -> torch.Tensor:  # type: ignore[type-arg]
    from stepvideo_training.randomness import NOISE

    return torch.stack([sample.normal(shape, NOISE) for sample in samples])


def test_captions_are_dropped_as_often_as_asked(tmp_path: Path) -> None:
    from stepvideo_training.randomness import SampleRandom

    task = dit_trainer(tmp_path / "dit", ALONE).task
    latents = task._training  # type: ignore[attr-defined]
    texts = [
        task._caption(latents, 0, SampleRandom(0, step, 0), 0.3)  # type: ignore[attr-defined]
        for step in range(1000)
    ]
    assert 250 < texts.count("") < 350
    assert set(texts) - {""} == set(latents.captions[0])


def test_recomputing_blocks_changes_nothing(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    kept, forgotten = (
        dit_trainer(tmp_path / name, ALONE, recompute=recompute)
        for name, recompute in (("a", False), ("b", True))
    )
    kept.run(until=3)
    forgotten.run(until=3)
    for name, parameter in kept.parameters.items():
        other = forgotten.parameters[name]
        assert torch.allclose(parameter, other, atol=1e-6), name
