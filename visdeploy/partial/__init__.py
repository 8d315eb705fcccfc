"""Progress of long runs, kept on disk: folders `OUT.partial` beside their outputs, from which a run is resumed."""

from visdeploy.partial.fingerprint import fingerprint
from visdeploy.partial.folder import PartialFolder
from visdeploy.partial.stream import KeptStream, PartialStream

__all__ = ["KeptStream", "PartialFolder", "PartialStream", "fingerprint"]
