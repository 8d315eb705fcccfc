"""Summary of a result as text."""

from __future__ import annotations

from visdeploy.results import Track, VideoResult, class_name

_MOST_CLASSES = 20


def summarize(result: VideoResult) -> str:
    """Return a line about the video, and one about each class with tracks, most frequent classes first."""
    size = f"{_count(result.num_frames, 'frame')} of {result.width}x{result.height}"
    rate = f" at {result.fps:.6g} fps" if result.fps else ""
    lines = [f"{result.name}: {_count(len(result.tracks), 'track')} in {size}{rate}"]
    groups: dict[int, list[Track]] = {}
    for track in result.tracks:
        groups.setdefault(track.label, []).append(track)
    ranked = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    lines += [f"  {class_name(result.classes, label)}: {_describe(tracks)}" for label, tracks in ranked[:_MOST_CLASSES]]
    if len(ranked) > _MOST_CLASSES:
        lines.append(f"  and {len(ranked) - _MOST_CLASSES} more classes")
    return "\n".join(lines)


def _describe(tracks: list[Track]) -> str:
    scores = sorted(track.score for track in tracks)
    spread = f"score {scores[0]:.2f}" + (f" to {scores[-1]:.2f}" if len(scores) > 1 else "")
    present = len({frame for track in tracks for frame in track.masks})
    return f"{_count(len(tracks), 'track')}, {spread}, in {_count(present, 'frame')}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
