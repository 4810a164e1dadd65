"""A convolution in pieces below a device's limits: what each piece reads and writes.

Where a limit lies is the backend's knowledge; how to divide follows from the contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Piece:
    """Output frames first..last of one sample, made of input frames begin..end (both end excluded).

    missing: zero frames in front of those of the input.
    """

    sample: int
    first: int
    last: int
    begin: int
    end: int
    missing: int

    def of_input(self, x_BCTHW: Tensor) -> Tensor:
        """The input frames [1, C, t, H, W], a view; t may be 0."""
        return x_BCTHW[self.sample : self.sample + 1, :, self.begin : self.end]

    def of_output(self, out_BCTHW: Tensor) -> Tensor:
        """Where the piece's result belongs, a view."""
        return out_BCTHW[self.sample : self.sample + 1, :, self.first : self.last]


@dataclass(frozen=True)
class CausalConv3dSlices:
    """A call of CAUSAL_CONV3D divided. whole: nothing needs dividing.

    A piece is never smaller than one output frame with the k frames that it reads.
    """

    out_shape: tuple[int, int, int, int, int]
    whole: bool
    frames_per_piece: int
    in_frames: int
    kernel: int
    step: int
    front_frames: int

    @classmethod
    def plan(
        cls,
        x_BCTHW: Tensor,
        weight_OIKKK: Tensor,
        stride: tuple[int, int, int],
        front_frames: int,
        max_elements: int,
    ) -> CausalConv3dSlices:
        """Pieces that read and write at most `max_elements` elements each, padding included."""
        batch, in_channels, in_frames, height, width = x_BCTHW.shape
        out_channels, kernel = weight_OIKKK.shape[0], weight_OIKKK.shape[-1]
        padded_frames, step = in_frames + front_frames, stride[0]
        out_frames = (padded_frames - kernel) // step + 1
        out_height, out_width = (height - 1) // stride[1] + 1, (width - 1) // stride[2] + 1
        in_frame = in_channels * height * width
        out_frame = out_channels * out_height * out_width
        readable = (max_elements // in_frame - kernel) // step + 1
        return cls(
            out_shape=(batch, out_channels, out_frames, out_height, out_width),
            whole=batch * max(padded_frames * in_frame, out_frames * out_frame) <= max_elements,
            frames_per_piece=max(1, min(readable, max_elements // out_frame)),
            in_frames=in_frames,
            kernel=kernel,
            step=step,
            front_frames=front_frames,
        )

    def __iter__(self) -> Iterator[Piece]:
        for sample in range(self.out_shape[0]):
            for first in range(0, self.out_shape[2], self.frames_per_piece):
                last = min(first + self.frames_per_piece, self.out_shape[2])
                # Counted in input frames, of which those below 0 are the front frames.
                begin = first * self.step - self.front_frames
                end = (last - 1) * self.step - self.front_frames + self.kernel
                yield Piece(
                    sample=sample,
                    first=first,
                    last=last,
                    begin=max(begin, 0),
                    end=max(end, 0),
                    missing=max(0, min(end, 0) - begin),
                )


def frames_per_conv2d(
    x_NCHW: Tensor, weight_OIKK: Tensor, padding: tuple[int, int, int, int], max_elements: int
) -> int:
    """Frames of CONV2D that stay within `max_elements` in and out, padding included; at least 1.

    padding: left, right, top, bottom.
    """
    left, right, top, bottom = padding
    height, width = x_NCHW.shape[2:]
    area = (height + top + bottom) * (width + left + right)
    return max(1, max_elements // (max(weight_OIKK.shape[:2]) * area))
