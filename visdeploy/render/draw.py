"""Rendering of the masks, contours and tags of one frame over its image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from visdeploy.arguments import as_tuple, check_flag, check_integer, check_number, check_type
from visdeploy.brief import brief, shorten
from visdeploy.errors import ConfigError, DataError
from visdeploy.render.colors import Color, text_color, track_color
from visdeploy.render.tags import Rectangle, place_tag, render_text
from visdeploy.results import FrameResult, Instance
from visdeploy.video.source import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Style of rendered results.

    Attributes:
        alpha: Opacity of the masks, 0 (contours only) to 1.
        contours: Draw the outline of each mask.
        labels: Write the class name.
        ids: Write the track id.
        scores: Write the score, in percent.
        min_score: Omit instances below this score. Clip methods return all of their slots, and those with low scores
            would cover the objects.
        font_size: Height of the text in pixels; None derives it from the frame size.
        color: Function from track id to RGB colour.
    """

    alpha: float = 0.45
    contours: bool = True
    labels: bool = True
    ids: bool = True
    scores: bool = True
    min_score: float = 0.25
    font_size: int | None = None
    color: Callable[[int], Color] = track_color

    def __post_init__(self) -> None:
        check_number(self.alpha, "alpha of the masks", minimum=0, maximum=1)
        check_number(self.min_score, "min_score")
        for name in ("contours", "labels", "ids", "scores"):
            check_flag(getattr(self, name), name)
        if self.font_size is not None:
            check_integer(self.font_size, "font_size in pixels", minimum=4, maximum=400)
        if not callable(self.color):
            raise ConfigError("color of a style", seen=shorten(self.color), expected="a function of the track id")

    def __repr__(self) -> str:
        return brief(self, **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "color"})

    def color_of(self, track_id: int) -> Color:
        """Return the colour of a track; raise a `ConfigError` if the function of the style returns something else."""
        found = as_tuple(self.color(track_id))
        if found is None or len(found) != 3:
            raise ConfigError(
                "color of a style", seen=shorten(found), expected="a function that returns (red, green, blue)"
            )
        red, green, blue = (check_integer(value, "color of a style", maximum=255) for value in found)
        return red, green, blue

    @classmethod
    def of(cls, options: dict[str, Any]) -> Style:
        """Return a style from keyword arguments; raise a `ConfigError` that lists the known ones for an unknown one."""
        known = [f.name for f in fields(cls)]
        unknown = [name for name in options if name not in known]
        if unknown:
            raise ConfigError(f"unknown style {unknown[0]!r}", expected=", ".join(known))
        return cls(**options)


def draw(image: Image, frame: FrameResult, **style: Any) -> Image:
    """Draw the instances of a frame over its image.

    Args:
        image: RGB, uint8, `(height, width, 3)`; it is not changed.
        frame: The result of that frame.
        **style: See `Style`.

    Returns:
        A new image of the same size.

    Raises:
        DataError: The image does not have the size of the result.
        ConfigError: A style argument is unknown or out of range.
    """
    return draw_styled(image, frame, Style.of(style))


def draw_styled(image: Image, frame: FrameResult, style: Style) -> Image:
    """Draw the instances of a frame over its image, with a `Style`; see `draw`."""
    check_type(frame, FrameResult, "the result to draw", expected="a FrameResult")
    shape = (frame.height, frame.width, 3)
    if not isinstance(image, np.ndarray) or image.shape != shape or image.dtype != np.uint8:
        raise DataError(
            f"the image does not match the result of frame {frame.index}",
            seen=shorten(image),
            expected=f"uint8 array {shape}",
        )
    canvas = image.copy()
    shown = [i for i in frame if i.score >= style.min_score and i.mask.area]
    shown.sort(key=lambda i: (-i.mask.area, i.track_id))  # small objects on top of large ones
    for instance in shown:
        _draw_mask(canvas, instance, style)
    _draw_tags(canvas, shown, style)
    return canvas


def _draw_mask(canvas: Image, instance: Instance, style: Style) -> None:
    """Blend and outline one mask. Only pixels in its box, extended by the width of the outline, change."""
    import cv2
    from pycocotools import mask as coco

    x1, y1, x2, y2 = (int(v) for v in instance.box)
    mask: npt.NDArray[np.uint8] = np.ascontiguousarray(coco.decode(instance.mask.to_coco())[y1:y2, x1:x2])
    color = style.color_of(instance.track_id)
    if style.alpha:
        region = canvas[y1:y2, x1:x2]
        blended = cv2.addWeighted(region, 1 - style.alpha, np.full_like(region, color), style.alpha, 0)
        cv2.copyTo(blended, mask, region)
    if style.contours:
        outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE, offset=(x1, y1))
        thick = max(1, round(min(canvas.shape[:2]) / 270))
        cv2.drawContours(canvas, outlines, -1, color, thick, cv2.LINE_AA)


def _draw_tags(canvas: Image, shown: Sequence[Instance], style: Style) -> None:
    height, width = canvas.shape[:2]
    size = style.font_size or min(48, max(11, round(min(height, width) / 30)))
    taken: list[Rectangle] = []
    for instance in sorted(shown, key=lambda i: (-i.score, i.track_id)):
        ink = _tag(instance, style, size, width)
        if ink is None:
            continue
        area = place_tag(instance.box, ink.shape, (height, width), taken)
        taken.append(area)
        left, top, right, bottom = area
        background = style.color_of(instance.track_id)
        share = ink[: bottom - top, : right - left, None].astype(np.float32) / 255
        patch = np.asarray(background) * (1 - share) + np.asarray(text_color(background)) * share
        canvas[top:bottom, left:right] = patch.round().astype(np.uint8)


def _tag(instance: Instance, style: Style, size: int, room: int) -> npt.NDArray[np.uint8] | None:
    """Return the opacity of the longest tag that fits the frame: `#id class score`, without score, without class."""
    facts = ((style.ids, f"#{instance.track_id}"), (style.labels, instance.class_name))
    parts = [text for wanted, text in (*facts, (style.scores, f"{instance.score:.0%}")) if wanted]
    joint = " " if style.labels else ", "
    inks = (render_text(joint.join(parts[:count]), size) for count in range(len(parts), 0, -1))
    shortest = None
    for ink in inks:
        shortest = ink
        if ink.shape[1] <= room:
            break
    return shortest
