"""Function bodies of `visdeploy::MSDeformAttn` and `visdeploy::MSDeformAttnFused` in standard operators."""

from __future__ import annotations

from string import Template

# Everything is computed in the type of the input `$like`: points may be float32 when the values are half precision.
_SIZES = """
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    two = Constant <value = int64[1] {2}> ()
    three = Constant <value = int64[1] {3}> ()
    four = Constant <value = int64[1] {4}> ()
    value_shape = Shape (value)
    point_shape = Shape ($points)
    batch = Gather (value_shape, zero)
    heads = Gather (value_shape, two)
    channels = Gather (value_shape, three)
    queries = Gather (point_shape, one)
    points = Gather (point_shape, four)
    maps = Mul (batch, heads)
    shape_grid = Concat <axis = 0> (maps, queries, points, two)
    shape_share = Concat <axis = 0> (maps, one, queries, points)
    real_two = CastLike (two, $like)
    real_one = CastLike (one, $like)
"""

# Offsets become locations, [N, Q, 1, L, 1, 2 or 4] + [N, Q, M, L, P, 2]; logits become weights.
_FUSED = """
    axis_last = Constant <value = int64[1] {-1}> ()
    reference_axes = Constant <value = int64[2] {2, 4}> ()
    reference = Unsqueeze (reference_points, reference_axes)
    centre = Slice (reference, zero, two, axis_last)
    offsets = CastLike (sampling_offsets, reference_points)
$steps
    sampling_locations = Add (centre, steps)
    levels = Gather (point_shape, three)
    samples = Mul (levels, points)
    shape_row = Concat <axis = 0> (batch, queries, heads, samples)
    shape_weights = Concat <axis = 0> (batch, queries, heads, levels, points)
    logits = CastLike (attention_logits, reference_points)
    logit_rows = Reshape <allowzero = 1> (logits, shape_row)
    weight_rows = Softmax <axis = -1> (logit_rows)
    attention_weights = Reshape <allowzero = 1> (weight_rows, shape_weights)
"""

# Reference points: offsets are in pixels of their level.
_STEPS_OF_POINTS = """
    swap = Constant <value = int64[2] {1, 0}> ()
    level_sizes = Gather <axis = 1> (spatial_shapes, swap)
    level_sizes_real = CastLike (level_sizes, reference_points)
    level_sizes_by_point = Unsqueeze (level_sizes_real, one)
    steps = Div (offsets, level_sizes_by_point)
"""

# Reference boxes: an offset equal to the number of points is half the size of the box.
_STEPS_OF_BOXES = """
    box = Slice (reference, two, four, axis_last)
    half_box = Div (box, real_two)
    points_real = CastLike (points, reference_points)
    parts_of_box = Div (offsets, points_real)
    steps = Mul (parts_of_box, half_box)
"""

_GRIDS = """
    doubled = Mul (sampling_locations, real_two)
    grids = Sub (doubled, real_one)
    by_channel_stored = Transpose <perm = [0, 2, 3, 1]> (value)
    by_channel = CastLike (by_channel_stored, $like)
"""

_LEVEL = """
    level_$l = Constant <value = int64 {$l}> ()
    size_$l = Gather (spatial_shapes, level_$l)
    area_$l = ReduceProd <keepdims = 1> (size_$l)
    level_1d_$l = Constant <value = int64[1] {$l}> ()
    start_$l = Gather (level_start_index, level_1d_$l)
    end_$l = Add (start_$l, area_$l)
    slice_$l = Slice (by_channel, start_$l, end_$l, three)
    shape_$l = Concat <axis = 0> (maps, channels, size_$l)
    map_$l = Reshape <allowzero = 1> (slice_$l, shape_$l)
    grid_5d_$l = Gather <axis = 3> (grids, level_$l)
    grid_swapped_$l = Transpose <perm = [0, 2, 1, 3, 4]> (grid_5d_$l)
    grid_$l = Reshape <allowzero = 1> (grid_swapped_$l, shape_grid)
    share_4d_$l = Gather <axis = 3> (attention_weights, level_$l)
    share_swapped_$l = Transpose <perm = [0, 2, 1, 3]> (share_4d_$l)
    share_$l = Reshape <allowzero = 1> (share_swapped_$l, shape_share)
    sampled_$l = GridSample <mode = "$mode", padding_mode = "zeros", align_corners = 0> (map_$l, grid_$l)
    weighted_$l = Mul (sampled_$l, share_$l)
    axis_last_$l = Constant <value = int64[1] {-1}> ()
    part_$l = ReduceSum <keepdims = 0> (weighted_$l, axis_last_$l)
"""

_TAIL = """
    parts = Sum ($parts)
    width = Mul (heads, channels)
    shape_output = Concat <axis = 0> (batch, width, queries)
    flat = Reshape <allowzero = 1> (parts, shape_output)
    by_query = Transpose <perm = [0, 2, 1]> (flat)
    output = CastLike (by_query, value)
"""


def body_text(levels: int, opset: int, reference_size: int) -> str:
    """Return the nodes in the textual syntax of ONNX, with one GridSample per level.

    Args:
        levels: Number of pyramid levels.
        opset: Version of the standard operators.
        reference_size: 0 for the plain op; 2 for the fused op with reference points, 4 with reference boxes.
    """
    like, points = ("reference_points", "sampling_offsets") if reference_size else ("sampling_locations",) * 2
    steps = _STEPS_OF_BOXES if reference_size == 4 else _STEPS_OF_POINTS
    # Opset 20 renamed the mode. The axes of ReduceProd became an input in opset 18, so it is used without axes here.
    mode = "linear" if opset >= 20 else "bilinear"
    parts = [Template(_SIZES).substitute(like=like, points=points)]
    parts += [Template(_FUSED).substitute(steps=steps)] if reference_size else []
    parts += [Template(_GRIDS).substitute(like=like)]
    parts += [Template(_LEVEL).substitute(l=level, mode=mode) for level in range(levels)]
    parts += [Template(_TAIL).substitute(parts=", ".join(f"part_{level}" for level in range(levels)))]
    return "".join(parts)
