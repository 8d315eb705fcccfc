"""Folder with the progress of a run, tied to everything that its result depends on."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import TracebackType

from visdeploy.atomic import write_text, writing
from visdeploy.errors import ConfigError, DataError, OutputError
from visdeploy.json_fields import Entry, read_json
from visdeploy.outputs import Output, check_distinct

if sys.platform != "win32":  # without locks, two processes can write one folder
    from fcntl import LOCK_EX, LOCK_NB, flock

logger = logging.getLogger(__name__)

_KIND = "visdeploy partial 1"
_RUN = "run.json"
_LONGEST_NAME = 255  # bytes


def _fitting(name: str, suffix: str) -> str:
    """Return a name with a suffix; its middle is replaced by a checksum if it would be too long for a file system."""
    whole = os.fsencode(name + suffix)
    if len(whole) <= _LONGEST_NAME:
        return name + suffix
    end = f"-{sha256(whole).hexdigest()[:8]}{suffix}"
    return whole[: _LONGEST_NAME - len(end)].decode(errors="ignore") + end


class PartialFolder:
    """Folder `OUT.partial` beside an output, with the progress of the run that writes it.

    `run.json` states what the result depends on. The folder appears when progress is first kept, is locked by the run
    until the end of the `with` block, and is removed by `remove` when the output is complete.

    Args:
        output: File or folder that the run writes.
        resume: Continue from an existing folder; start from the beginning if there is none.
        overwrite: Delete an existing folder, unless the run is to be resumed.

    Attributes:
        path: Path of the folder.
    """

    def __init__(self, output: Path, *, resume: bool = False, overwrite: bool = False) -> None:
        output = output if output.name not in ("", "..") else output.resolve()
        self.path = output.with_name(_fitting(output.name, ".partial"))
        self._resume, self._overwrite = resume, overwrite
        self._about: dict[str, str] = {}
        self._lock: int | None = None
        self._written = False

    def check(self, outputs: Sequence[Output] = ()) -> None:
        """Check that an existing folder is one of an earlier run, and that it is clear what to do with it.

        Args:
            outputs: What the run writes; nothing of it may be in the folder, which is removed at the end.

        Raises:
            OutputError: It is something else, the run neither resumes nor overwrites, or an output is in the folder.
        """
        check_distinct([*outputs, Output(self.path, folder=True)])
        if not os.path.lexists(self.path) or self._is_empty():
            return
        if not (self.path / _RUN).is_file() or self.path.is_symlink():
            raise OutputError(
                f"cannot keep progress in {self.path}", seen="something else", hint="Choose another output, or move it."
            )
        if not (self._resume or self._overwrite):
            raise OutputError(
                f"{self.path} contains the progress of an earlier run",
                hint="Pass --resume to continue it, --overwrite to start anew, or choose another output.",
            )

    def open(self, about: Mapping[str, str]) -> bool:
        """Begin a run, and return whether it continues an earlier one.

        Args:
            about: Map from name to value of everything that the result depends on.

        Raises:
            ConfigError: The run to be continued had another value.
            DataError: The folder is damaged.
            OutputError: Another process uses the folder, or see `check`.
        """
        self._about = dict(about)
        self.check()
        if not self.path.exists() or self._is_empty():
            if self._resume:
                logger.warning("there is no progress in %s; the run starts from the beginning", self.path)
            return False
        self._acquire()
        if not self._resume:
            self.remove()
            return False
        self._compare(Entry.of(str(self.path / _RUN), read_json(self.path / _RUN)))
        return True

    def _is_empty(self) -> bool:
        return self.path.is_dir() and next(self.path.iterdir(), None) is None

    def _compare(self, entry: Entry) -> None:
        if entry.text("kind") != _KIND:
            raise entry.fail("kind", seen=entry.text("kind"), expected=_KIND)
        found = entry.entry("about")
        for name, wanted in self._about.items():
            if (seen := found.text(name)) != wanted:
                raise ConfigError(
                    f"cannot resume {self.path}: it was made with another {name}",
                    seen=seen,
                    expected=wanted,
                    hint="Resume with the same bundle, input and options, or pass --overwrite instead of --resume.",
                )

    def create(self) -> Path:
        """Create the folder, if it does not exist yet, and return its path.

        Raises:
            OutputError: It cannot be written, or another process uses it.
        """
        if self._lock is None:
            with writing(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
            self._acquire()
            write_text(self.path / _RUN, json.dumps({"kind": _KIND, "about": self._about}, indent=1))
        self._written = True
        return self.path

    def damaged(self, why: object) -> DataError:
        """Return an error about the content of the folder, for the caller to raise."""
        return DataError(
            f"the progress in {self.path} is damaged",
            seen=str(why)[:200],
            hint="Pass --overwrite instead of --resume to start anew.",
        )

    def remove(self) -> None:
        """Remove the folder of this run; without one, this has no effect."""
        if self._lock is None:
            return
        with writing(self.path):
            shutil.rmtree(self.path)
        self._written = False
        self._release()

    def _release(self) -> None:
        if self._lock is not None and self._lock >= 0:
            with suppress(OSError):
                os.close(self._lock)
        self._lock = None

    def __enter__(self) -> PartialFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._written:
            logger.warning("stopped; %s contains the progress, and --resume continues it", self.path)
        self._release()

    def _acquire(self) -> None:
        if sys.platform == "win32":
            self._lock = -1
            return
        with writing(self.path):
            handle = os.open(self.path, os.O_RDONLY)
        try:
            flock(handle, LOCK_EX | LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise OutputError(
                f"another process writes {self.path}", hint="Wait until it ends, or choose another output."
            ) from error
        except OSError:  # some network file systems have no locks
            pass
        self._lock = handle
