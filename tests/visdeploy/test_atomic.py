"""Files and folders appear complete or not at all."""

from pathlib import Path

import pytest

from visdeploy.atomic import replacing_file, replacing_folder, write_text


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
