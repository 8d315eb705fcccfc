"""Files and folders appear complete or not at all."""

import errno
import os
import re
from pathlib import Path

import pytest

from visdeploy.atomic import replacing_file, replacing_files, replacing_folder, swap_folder, try_writing, write_text
from visdeploy.errors import OutputError


def test_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a/b.json"
    with replacing_file(target) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".json"
        assert not target.exists()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o600 == 0o600
    write_text(target, "newer ü")
    assert target.read_text(encoding="utf-8") == "newer ü"
    assert list(target.parent.iterdir()) == [target]


def test_file_stays_on_error(tmp_path: Path) -> None:
    target = tmp_path / "b.json"
    target.write_text("old")

    def fail() -> None:
        with replacing_file(target) as temporary:
            temporary.write_text("new")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_old_folder_comes_back_when_it_cannot_be_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, staged = tmp_path / "d", tmp_path / "new"
    for folder, name in ((target, "old"), (staged, "fresh")):
        folder.mkdir()
        (folder / name).write_text("")
    rename = os.replace

    def fail(source: Path, destination: Path) -> None:
        if source == staged:
            raise PermissionError("in use")
        rename(source, destination)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(PermissionError):
        swap_folder(staged, target)
    assert [p.name for p in target.iterdir()] == ["old"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "new"]


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "d"
    target.mkdir()
    (target / "stale").write_text("")

    def fail() -> None:
        with replacing_folder(target) as temporary:
            (temporary / "fresh").write_text("")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [p.name for p in target.iterdir()] == ["stale"]
    with replacing_folder(target) as temporary:
        (temporary / "fresh").write_text("")
    assert [p.name for p in target.iterdir()] == ["fresh"]
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "cannot write .*b.json .*No space left on device.* Free some space"),
        (errno.EROFS, "cannot write .*b.json .*Read-only file system.* check the permissions"),
        (errno.ENOTDIR, "cannot write .*b.json .*Not a directory.* A part of the path is a file"),
    ],
)
@pytest.mark.parametrize("replacing", [replacing_file, replacing_folder])
def test_failed_writes_are_typed_and_leave_nothing(tmp_path: Path, replacing, number: int, message: str) -> None:
    def fail() -> None:
        with replacing(tmp_path / "new/b.json"):
            raise OSError(number, os.strerror(number))

    with pytest.raises(OutputError, match=message):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_files_are_replaced_together_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "a.txt", tmp_path / "a.json"

    def write(text: str) -> None:
        with replacing_files([first, second]) as temporaries:
            for each in temporaries:
                each.write_text(text)

    rename = os.replace

    def fail(source: Path, destination: Path) -> None:
        if destination == second and source.suffix == ".json":
            raise PermissionError(errno.EPERM, "in use")
        rename(source, destination)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="in use"):
        write("old")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    write("old")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match="in use"):
        write("new")
    assert [first.read_text(), second.read_text()] == ["old", "old"]
    monkeypatch.setattr(os, "link", lambda *_, **__: fail(second, second))  # a file system without hard links
    with pytest.raises(OutputError, match="in use"):
        write("new")
    assert [first.read_text(), second.read_text()] == ["old", "old"]
    monkeypatch.undo()
    write("new")
    assert [first.read_text(), second.read_text()] == ["new", "new"]
    assert sorted(tmp_path.iterdir()) == [second, first]


def test_leftovers_of_a_killed_writer_are_removed_and_files_in_use_are_not(tmp_path: Path) -> None:
    target, folder = tmp_path / "b.json", tmp_path / "d"
    with replacing_file(target) as used, replacing_folder(folder) as used_folder:
        names = [path.name for path in (used, used_folder)]
        left = [tmp_path / re.sub("-.{8}[.]", "-abcdef12.", name) for name in names]
        left[0].write_text("")
        left[1].mkdir()
        kept = tmp_path / ".b-20240101.json"
        kept.write_text("a file of the user")
        write_text(target, "")
        with replacing_folder(folder):
            pass
        assert used.exists()
        assert used_folder.exists()
        assert not any(path.exists() for path in left)
    assert sorted(tmp_path.iterdir()) == [kept, target, folder]


def test_two_writers_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process writes the folder after this one has moved the old folder aside."""
    target, staged, other = tmp_path / "d", tmp_path / "new", tmp_path / "other"
    for each in (target, staged, other):
        each.mkdir()
        (each / each.name).write_text("")
    rename = os.replace

    def disturbed(source: Path, destination: Path) -> None:
        if source == staged and other.exists():
            rename(other, target)
        rename(source, destination)

    monkeypatch.setattr(os, "replace", disturbed)
    swap_folder(staged, target)
    assert [p.name for p in target.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [target]


def test_trying_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for path in ("new/folder/b.json", "file"):
        try_writing(tmp_path / path)
        try_writing(tmp_path / path, folder=True)
    for path in ("file/b.json", "b" * 300):
        with pytest.raises(OutputError):
            try_writing(tmp_path / path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "kept")]
