"""Association of instances between frames and between clips, in numpy."""

from visdeploy.tracking.affinity import AffinityTracker, Association, sigmoid

__all__ = ["AffinityTracker", "Association", "sigmoid"]
