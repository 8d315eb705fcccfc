"""Time of the clustering of one window of VIShv, beside a straightforward version in NumPy.

Run: python benchmarks/clustering.py [--size 480 854] [--frames 8] [--objects 10] [--repeats 3] [--threads 2]

The window has moving elliptic objects with the embeddings of a trained network: coordinates and appearance dimensions
close to the centre of the object, with noise. Both versions start from the same outputs of a network, alternate in one
process, and must give equal labels.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from visdeploy.tracking.cluster_rule import OUTLIER, ClusterRule
from visdeploy.tracking.embedding_clusters import Clusters, find_clusters
from visdeploy.tracking.embedding_points import Points

RULE = ClusterRule(free_dim_stds=(0.3, 0.3, 0.3))
FloatArray = npt.NDArray[np.float32]
Window = tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.bool_]]


def plain(embeddings: FloatArray, bandwidths: FloatArray, seediness: FloatArray, foreground: npt.NDArray[np.bool_],
          rule: ClusterRule) -> npt.NDArray[np.int64]:  # fmt: skip
    """Cluster a window as the published algorithm reads, and return the labels of its foreground pixels."""
    points = np.moveaxis(embeddings, 1, -1)[foreground]
    spread = np.moveaxis(bandwidths, 1, -1)[foreground]
    seeds = seediness[foreground]
    free_bandwidths = np.array([1 / std**2 for std in rule.free_dim_stds], np.float32)
    labels = np.full(len(points), OUTLIER)
    distances: list[FloatArray] = []
    available = labels == OUTLIER
    for number in range(rule.max_clusters):
        available = labels == OUTLIER
        if not available.any():
            break
        best = int(np.where(available, seeds, -1).argmax())
        if seeds[best] < rule.min_seediness:
            break
        bandwidth = np.concatenate([spread[best], free_bandwidths])
        distance = np.full(len(points), 1e8, np.float32)
        terms = np.square(points[available] - points[best]) * bandwidth
        total = terms[:, 0].copy()
        for k in range(1, terms.shape[1]):
            total += terms[:, k]
        distance[available] = np.sqrt(total)
        labels[available & (np.exp(-distance / 2) > np.float32(rule.primary_threshold))] = number
        distances.append(distance)
    if available.any() and distances:
        table = np.stack(distances)
        near = available & (np.exp(-table.max(axis=0) / 2) > np.float32(rule.secondary_threshold))
        labels[near] = table.argmax(axis=0)[near]
    return labels


def fast(embeddings: FloatArray, bandwidths: FloatArray, seediness: FloatArray, foreground: npt.NDArray[np.bool_],
         rule: ClusterRule, threads: int = 1) -> Clusters:  # fmt: skip
    """Cluster a window as the decoder does."""
    return find_clusters(Points.of(embeddings, bandwidths, seediness, list(foreground)), rule, threads)


def synthetic_window(generator: np.random.Generator, frames: int, size: tuple[int, int], objects: int) -> Window:
    """Create the outputs of a network for a window: embeddings, bandwidths, seediness and foreground.

    The sizes of the objects are such that they cover about a third of the window.
    """
    height, width = size
    rows, columns = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width) * width / height, indexing="ij")
    grid = np.stack([np.zeros_like(rows), rows, columns])
    centers = generator.uniform(-0.8, 0.8, (objects, 2)) * (1, width / height)
    speeds = generator.normal(0, 0.01, (objects, 2))
    radii = generator.uniform(0.7, 1.3, (objects, 2)) * np.sqrt(0.45 * 4 * width / height / np.pi / objects)
    looks = generator.normal(0, 0.8, (objects, 3))
    embeddings = np.empty((frames, 6, height, width), np.float32)
    seediness = np.full((frames, height, width), 0.05, np.float32)
    owners = np.full((frames, height, width), -1)
    for t in range(frames):
        embeddings[t, :3], embeddings[t, 3:] = grid, 0
        embeddings[t, 0] = 2 * t / max(frames - 1, 1) - 1
        for i in range(objects):
            y, x = (grid[1:] - (centers[i] + t * speeds[i])[:, None, None]) / radii[i][:, None, None]
            distance = y * y + x * x
            inside = distance < 1
            owners[t][inside] = i
            embeddings[t, :, inside] = np.array([0, *centers[i], *looks[i]], np.float32)
            seediness[t][inside] = (0.98 * np.exp(-0.5 * distance[inside])).astype(np.float32)
    embeddings += generator.normal(0, 0.07, embeddings.shape).astype(np.float32)
    bandwidths = np.full((frames, 3, height, width), 10, np.float32)
    bandwidths *= np.exp(generator.normal(0, 0.1, bandwidths.shape)).astype(np.float32)
    return embeddings, bandwidths, seediness, owners >= 0


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """Return the time and the processor time of one call."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def main() -> None:
    """Measure both versions in turns, compare their labels, and print."""
    from machine import machine_line  # here, so that tests can import the plain version

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 854), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    window = synthetic_window(np.random.default_rng(0), options.frames, tuple(options.size), options.objects)
    sides: dict[str, Callable[[], object]] = {"plain": lambda: plain(*window, RULE)}
    for threads in sorted({1, options.threads}):
        sides[f"ours, {threads} threads"] = lambda threads=threads: fast(*window, RULE, threads)  # type: ignore[misc]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(options.repeats):
        for name, run in sides.items():
            times[name].append(seconds(run))
    wanted, found = plain(*window, RULE), fast(*window, RULE, options.threads)
    print(machine_line())
    print(f"{options.frames} frames of {options.size[0]}x{options.size[1]}, {window[3].sum()} foreground pixels, "
          f"{len(found)} clusters, {np.mean(found.labels < 0):.1%} outliers")  # fmt: skip
    least = {name: 1000 * np.min(values, axis=0) for name, values in times.items()}
    for name, (passed, used) in least.items():
        ratios = least["plain"] / (passed, used)
        print(f"{name:16s} {passed:7.1f} ms, {used:7.1f} ms of processor time, the least of {options.repeats}; "
              f"plain / this: {ratios[0]:.1f}, {ratios[1]:.1f}")  # fmt: skip
    print(f"labels that differ: {np.count_nonzero(wanted != found.labels)}")


if __name__ == "__main__":
    main()
