"""Association of instances between frames and between clips, in NumPy."""

from visdeploy.tracking.affinity import AffinityTracker, Association, sigmoid

__all__ = ["AffinityTracker", "Association", "sigmoid"]
