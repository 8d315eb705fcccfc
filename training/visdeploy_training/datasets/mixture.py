"""Mixture of data sets with a fixed number of samples of each, as in STEm-Seg (Athar et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch.utils.data import Sampler

from visdeploy.errors import ConfigError
from visdeploy_training.datasets.batching import SEEDS
from visdeploy_training.datasets.clips import ClipPart, SampleKey


def shares(ratios: Sequence[float], total: int) -> list[int]:
    """Return the number of samples of each data set, `round(ratio * total)` with ratios of the sum 1.

    Raises:
        ConfigError: A ratio is negative, or all are 0.
    """
    if not ratios or min(ratios) < 0 or sum(ratios) <= 0:
        raise ConfigError("the ratios of data sets are wrong", seen=str(list(ratios)), expected="one above 0")
    whole = sum(ratios)
    # ratios that already have the sum 1 up to rounding stay as they are
    scale = 1.0 if abs(whole - 1) < 1e-9 else whole
    return [round(ratio / scale * total) for ratio in ratios]


def mixture_indices(lengths: Sequence[int], ratios: Sequence[float], total: int) -> list[tuple[int, int]]:
    """List the items of all data sets that a training uses.

    A data set of which fewer samples than items are needed provides its first items. Otherwise it provides whole
    repetitions of all items, and items at equal distances for the rest.

    Args:
        lengths: Number of items of each data set.
        ratios: Share of the samples of each data set, relative to the others.
        total: Number of samples of the training.

    Returns:
        Pairs of the index of a data set and of its item, sorted by data set.

    Raises:
        ConfigError: A data set without items is needed, or the ratios are wrong.
    """
    found = []
    for part, (length, count) in enumerate(zip(lengths, shares(ratios, total), strict=True)):
        if count and not length:
            raise ConfigError("a data set of the mixture is empty", seen=f"data set {part}", expected="items")
        found += [(part, item) for item in _items(length, count)]
    return found


def _items(length: int, count: int) -> list[int]:
    if count < length:
        return list(range(count))
    whole, rest = divmod(count, length) if length else (0, 0)
    return list(range(length)) * whole + [int(i) for i in np.round(np.linspace(0, length - 1, rest))]


class CountedBatches(Sampler[list[SampleKey]]):
    """Sampler of the samples of `mixture_indices` in random order; a batch can have clips of several data sets.

    If there are several processes, each uses its own samples. After all samples, they are drawn again.

    Args:
        parts: The data sets.
        ratios: Share of the samples of each data set, relative to the others.
        batch_size: Number of clips of one process in a batch.
        total: Number of samples of all processes.
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
        total: int,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
    ) -> None:
        self.parts, self.batch_size, self.seed = tuple(parts), batch_size, seed
        self.rank, self.world, self.start = rank, world, start
        self.samples = mixture_indices([len(part.items) for part in parts], ratios, total)
        if len(self.samples) < world:
            raise ConfigError("the mixture has too few samples", seen=f"{len(self.samples)}", expected=f"{world}")

    def __iter__(self) -> Iterator[list[SampleKey]]:
        """Yield the batches from `start` on."""
        return islice(self._batches(), self.start, None)

    def _batches(self) -> Iterator[list[SampleKey]]:
        keys = islice(self._keys(), self.rank, None, self.world)
        while True:
            yield list(islice(keys, self.batch_size))

    def _keys(self) -> Iterator[SampleKey]:
        """Yield all samples in random order, then in another order, endlessly."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            order = torch.randperm(len(self.samples), generator=generator).tolist()
            seeds = torch.randint(SEEDS, (len(order),), generator=generator).tolist()
            for position, seed in zip(order, seeds, strict=True):
                part, item = self.samples[position]
                record, frame = self.parts[part].items[item]
                yield SampleKey(part, record, seed, frame)
