"""Association of instances between frames and between clips, in NumPy."""

from visdeploy.tracking.affinity import AffinityTracker, Association, sigmoid
from visdeploy.tracking.object_memory import Assignment, ObjectMemory
from visdeploy.tracking.objects import Objects

__all__ = ["AffinityTracker", "Assignment", "Association", "ObjectMemory", "Objects", "sigmoid"]
