"""Identity: who is who from one frame to the next. Light, branchy, numpy only."""

from visdeploy.tracking.affinity import AffinityTracker, Association, sigmoid

__all__ = ["AffinityTracker", "Association", "sigmoid"]
