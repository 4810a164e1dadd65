"""A bound on the memory that a long walk over memory-mapped weights keeps resident."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from stepvideo_core.checkpoints.sources import TensorInfo, WeightSource


class RenewedSource:
    """Maps its files anew after every so many bytes.

    Pages of a map that were touched stay resident until the map is gone, so a checkpoint read from
    end to end would come to lie in memory as a whole.
    """

    def __init__(self, open_source: Callable[[], WeightSource], max_bytes: int) -> None:
        """max_bytes: what may be read of one map; the tensor in hand comes on top."""
        self._open, self._max_bytes = open_source, max_bytes
        self._source, self._num_bytes = open_source(), 0

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        return self._source.infos

    def read(self, key: str) -> Tensor:
        """One tensor; the caller lets go of it before it asks for many more."""
        if self._num_bytes >= self._max_bytes:
            self._source, self._num_bytes = self._open(), 0
        self._num_bytes += self.infos[key].num_bytes
        return self._source.read(key)
