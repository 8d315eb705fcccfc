"""Progress of long runs, kept on disk: folders `OUT.partial` beside their outputs, from which a run is resumed."""

from visdeploy.partial.fingerprint import fingerprint
from visdeploy.partial.folder import PartialFolder
from visdeploy.partial.stream import KeptStream, PartialStream, can_resume

__all__ = ["KeptStream", "PartialFolder", "PartialStream", "can_resume", "fingerprint"]
