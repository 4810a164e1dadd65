"""Pre-training of the text encoders: tell from a caption what it names.

The small encoders learn no language at large. Classifying what captions say gives the transformer
text states that differ where the videos differ, before it has learnt to read them; both are then
trained on together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stepvideo_core.config import ModelConfig
from stepvideo_training.operators import training_plan
from stepvideo_training.randomness import CAPTION, SCENE, SampleRandom
from stepvideo_training.settings import DataSettings, TextStage
from stepvideo_training.text_encoders import TextEncoders, initialise_step_llm
from stepvideo_training.tokens import CaptionTokenizer, TextBatch
from stepvideo_world.grammar import Named, caption, parse
from stepvideo_world.sample import TINY, WORLD, Distribution
from stepvideo_world.scene import COLOURS, GROUND_COLOURS, MOTIONS, SHAPES, SIZES, SPEEDS
from stepvideo_world.split import held_out_scene, training_scene
from stepvideo_world.words import LANGUAGES

_VALUES: Mapping[str, tuple[str, ...]] = {
    "shape": SHAPES,
    "colour": COLOURS,
    "motion": MOTIONS,
    "speed": SPEEDS,
    "size": SIZES,
}
_NUM_THINGS = 2
_EVALUATED = 256


def named_classes(named: Named) -> list[int]:
    """One class per question: each attribute of each thing, then the ground's two colours.

    0 means that the caption does not say.
    """
    classes = []
    for place in range(_NUM_THINGS):
        thing = named.things[place] if place < len(named.things) else None
        for attribute, values in _VALUES.items():
            said = getattr(thing, attribute) if thing is not None else None
            classes.append(0 if said is None else 1 + values.index(said))
    for said in (None, None) if named.ground is None else (named.ground.top, named.ground.bottom):
        classes.append(0 if said is None else 1 + GROUND_COLOURS.index(said))
    return classes


_NUM_CLASSES = [
    *(1 + len(values) for _ in range(_NUM_THINGS) for values in _VALUES.values()),
    *(1 + len(GROUND_COLOURS) for _ in range(2)),
]


class CaptionReading(nn.Module):
    """Answers all questions from Step-LLM's last state, and again from CLIP's first."""

    def __init__(self, encoders: TextEncoders, config: ModelConfig) -> None:
        super().__init__()
        self.encoders = encoders
        total = sum(_NUM_CLASSES)
        self.llm_head = nn.Linear(config.step_llm.hidden_size, total)
        self.clip_head = nn.Linear(config.clip.hidden_size, total)

    def forward(self, text: TextBatch) -> tuple[Tensor, Tensor]:
        llm_BLC, clip_BPC = self.encoders(text)
        rows = torch.arange(llm_BLC.shape[0], device=llm_BLC.device)
        last = torch.tensor(text.llm_lengths, device=llm_BLC.device) - 1
        return self.llm_head(llm_BLC[rows, last]), self.clip_head(clip_BPC[:, 0])


class TextTask:
    """What the loop trains for `stepvideo train text`."""

    module: CaptionReading

    def __init__(
        self,
        config: ModelConfig,
        data: DataSettings,
        tokenizer: CaptionTokenizer,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        torch.manual_seed(seed)
        encoders = TextEncoders(config, training_plan(device))
        initialise_step_llm(encoders.step_llm)
        self.module = CaptionReading(encoders, config).to(device)
        self.tokenizer, self.device = tokenizer, device
        base = TINY if data.distribution == "tiny" else WORLD
        self._distribution: Distribution = replace(base, num_frames=data.num_frames)
        self._held_out = [SampleRandom(seed, 0, index) for index in range(_EVALUATED)]

    @property
    def units(self) -> Sequence[nn.Module]:
        return ()

    def loss(
        self, stage: TextStage, samples: Sequence[SampleRandom]
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        llm, clip = self._cross_entropies(samples, held_out=False)
        return llm + clip, {"step_llm": llm, "clip": clip}

    def evaluate(self) -> Mapping[str, float]:
        """Share of questions answered rightly by either encoder, on held-out combinations."""
        batch, answers_BQ = self._batch(self._held_out, held_out=True)
        figures = {}
        for name, logits in zip(("step_llm", "clip"), self.module(batch), strict=True):
            guesses = [part.argmax(dim=-1) for part in logits.split(_NUM_CLASSES, dim=-1)]
            right = torch.stack(guesses, dim=1) == answers_BQ
            figures[f"{name}_accuracy"] = float(right.float().mean())
        return figures

    def rate(self, name: str, stage: TextStage) -> float:
        return 1.0

    def _cross_entropies(
        self, samples: Sequence[SampleRandom], *, held_out: bool
    ) -> tuple[Tensor, Tensor]:
        batch, answers_BQ = self._batch(samples, held_out=held_out)
        losses = []
        for logits in self.module(batch):
            parts = logits.float().split(_NUM_CLASSES, dim=-1)
            each = [F.cross_entropy(part, answers_BQ[:, i]) for i, part in enumerate(parts)]
            losses.append(torch.stack(each).mean())
        return losses[0], losses[1]

    def _batch(
        self, samples: Sequence[SampleRandom], *, held_out: bool
    ) -> tuple[TextBatch, Tensor]:
        draw = held_out_scene if held_out else training_scene
        captions = []
        for sample in samples:
            scene = draw(sample.numpy(SCENE), self._distribution)
            language = LANGUAGES[sample.index % len(LANGUAGES)]
            captions.append(caption(scene, language, sample.numpy(CAPTION)))
        answers = torch.tensor([named_classes(parse(text)) for text in captions])
        return self.tokenizer(captions).to(self.device), answers.to(self.device)
