"""Sampling of batches: an endless, seeded, resumable stream, mixed by data set and grouped by aspect ratio."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch.utils.data import Sampler

from visdeploy.errors import ConfigError
from visdeploy_training.datasets.clips import ClipPart, SampleKey

SEEDS = 1 << 62
"""Number of different seeds of samples."""


def shuffled(count: int, seed: int) -> Iterator[int]:
    """Yield `0 .. count - 1` in random order, then in another random order, endlessly."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


class MixedBatches(Sampler[list[SampleKey]]):
    """Sampler of endless batches. A batch has clips of one data set, drawn by its ratio, and of one aspect group.

    Aspect groups are portrait and landscape. If there are several processes, each uses its own share of every data set.

    Args:
        parts: The data sets.
        ratios: Probability of each data set, relative to the others.
        batch_size: Number of clips of one process in a batch.
        seed: Seed, the same in all processes.
        rank: Index of this process.
        world: Number of processes.
        start: Number of batches to skip, to continue an interrupted run.
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
        """Yield the batches from `start` on."""
        return islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[SampleKey]]:
        streams = [self._grouped(index) for index in range(len(self.parts))]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.rank)
        while True:
            part = int(torch.multinomial(self.ratios, 1, generator=generator))
            seeds = torch.randint(SEEDS, (self.batch_size,), generator=generator).tolist()
            items = zip(next(streams[part]), seeds, strict=True)
            yield [SampleKey(part, record, seed, frame) for (record, frame), seed in items]

    def _grouped(self, part: int) -> Iterator[list[tuple[int, int | None]]]:
        """Yield items of one data set, `batch_size` of the same aspect group at a time."""
        records, items = self.parts[part].records, self.parts[part].items
        buckets: tuple[list[tuple[int, int | None]], list[tuple[int, int | None]]] = ([], [])
        for position in islice(shuffled(len(items), self.seed + part), self.rank, None, self.world):
            index = items[position][0]
            bucket = buckets[records[index].width > records[index].height]
            bucket.append(items[position])
            if len(bucket) == self.batch_size:
                yield bucket.copy()
                bucket.clear()
