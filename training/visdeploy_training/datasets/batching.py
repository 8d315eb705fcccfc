"""Sampling of batches: an endless, seeded, resumable stream, mixed by data set and grouped by aspect ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import Sampler

from visdeploy.errors import ConfigError
from visdeploy_training.datasets.clips import ClipPart, SampleKey

_SEEDS = 1 << 62


def shuffled(count: int, seed: int) -> Iterator[int]:
    """`0 .. count - 1` in a new order again and again, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


class MixedBatches(Sampler[list[SampleKey]]):
    """Endless batches; each comes from one data set, drawn by its ratio, and of one aspect group.

    In a multi-process run every process takes its own share of each data set's stream.

    Args:
        parts: The data sets.
        ratios: Probability of each.
        batch_size: Clips of one process.
        seed: The same in all processes.
        rank: This process.
        world: Number of processes.
        start: Batches to skip, to go on where a run was stopped.
    """

    def __init__(
        self,
        parts: Sequence[ClipPart],
        ratios: Sequence[float],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
    ) -> None:
        if len(parts) != len(ratios) or not parts or min(ratios) < 0 or sum(ratios) <= 0:
            raise ConfigError("one ratio is needed for each data set", seen=str(list(ratios)), expected=str(len(parts)))
        self.parts, self.ratios, self.batch_size = tuple(parts), torch.tensor(ratios, dtype=torch.float64), batch_size
        self.seed, self.rank, self.world, self.start = seed, rank, world, start

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Batches from `start` on."""
        return islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[SampleKey]]:
        streams = [self._grouped(index) for index in range(len(self.parts))]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.rank)
        while True:
            part = int(torch.multinomial(self.ratios, 1, generator=generator))
            seeds = torch.randint(_SEEDS, (self.batch_size,), generator=generator).tolist()
            items = zip(next(streams[part]), seeds, strict=True)
            yield [SampleKey(part, record, seed, frame) for (record, frame), seed in items]

    def _grouped(self, part: int) -> Iterator[list[tuple[int, int | None]]]:
        """Items of one data set, `batch_size` of the same aspect group at a time."""
        records, items = self.parts[part].records, self.parts[part].items
        buckets: tuple[list[tuple[int, int | None]], list[tuple[int, int | None]]] = ([], [])
        for position in islice(shuffled(len(items), self.seed + part), self.rank, None, self.world):
            index = items[position][0]
            bucket = buckets[records[index].width > records[index].height]
            bucket.append(items[position])
            if len(bucket) == self.batch_size:
                yield bucket.copy()
                bucket.clear()
