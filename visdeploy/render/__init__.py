"""Rendering of results over frames, to an image, a video or a contact sheet.

OpenCV and Pillow are imported on first use.
"""

from visdeploy.render.colors import track_color
from visdeploy.render.draw import Style, draw
from visdeploy.render.sheet import contact_sheet
from visdeploy.render.video import render_video

__all__ = ["Style", "contact_sheet", "draw", "render_video", "track_color"]
