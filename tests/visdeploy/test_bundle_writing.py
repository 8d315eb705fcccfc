"""Bundles are written whole or not at all, and replace nothing but bundles."""

import pytest

from tests.visdeploy.plain_bundle import FILES, put
from tests.visdeploy.step_graph import fields
from visdeploy.bundle import MANIFEST, MODEL, Bundle, stage_bundle, write_bundle
from visdeploy.errors import BundleError, OutputError


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "a.vis", fields(), FILES)


@pytest.mark.parametrize("name", [".hidden", "sub/.hidden", "Thumbs.db"])
def test_names_that_bundles_ignore_are_not_written(tmp_path, name):
    with pytest.raises(BundleError, match=f"names.*{name}"):
        write_bundle(tmp_path / "a.vis", fields(), FILES | {name: b"x"})
    assert list(tmp_path.iterdir()) == []


def test_identity_follows_content_and_manifest(bundle, tmp_path):
    other_file = write_bundle(tmp_path / "b.vis", fields(), FILES | {MODEL: b"another"})
    other_field = write_bundle(tmp_path / "c.vis", fields() | {"tracking": {"affinity_threshold": 0.2}}, FILES)
    assert len({bundle.identity, other_file.identity, other_field.identity}) == 3
    assert write_bundle(tmp_path / "d.vis", fields(), FILES).identity == bundle.identity


def test_large_files_are_hashed_in_chunks(tmp_path):
    data = bytes(range(256)) * 4096 * 3 + b"end"
    bundle = write_bundle(tmp_path / "a.vis", fields(), FILES | {MODEL: data})
    assert bundle.manifest.files[MODEL].size == len(data)
    assert Bundle.open(bundle.path).model_path.read_bytes() == data


@pytest.mark.parametrize(
    ("change", "files", "message"),
    [
        ({"surprise": 1}, {}, "'surprise'"),
        ({"opset": 12}, {}, "'opset'"),
        ({}, {MODEL: None}, r"lacks \['model.onnx'\]"),
        ({}, {"sub/extra.bin": b"x"}, None),
    ],
)
def test_nothing_is_left_when_writing_fails(tmp_path, change, files, message):
    wanted = {k: v for k, v in (FILES | files).items() if v is not None}
    target = tmp_path / "deep" / "deeper" / "a.vis"
    if message is None:
        assert write_bundle(target, fields() | change, wanted).manifest.files["sub/extra.bin"].size == 1
        return
    with pytest.raises(BundleError, match=message):
        write_bundle(target, fields() | change, wanted)
    assert list(tmp_path.iterdir()) == []


def test_an_exception_in_the_middle_leaves_nothing(tmp_path):
    def interrupted():
        with stage_bundle(tmp_path / "new" / "a.vis") as folder:
            (folder / MODEL).write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bundle_is_replaced_only_on_request(bundle, tmp_path):
    with pytest.raises(BundleError, match=r"exists already.*overwrite"):
        write_bundle(bundle.path, fields(), FILES | {MODEL: b"new"})
    assert Bundle.open(bundle.path).model_path.read_bytes() == b"model"
    write_bundle(bundle.path, fields(), FILES | {MODEL: b"new"}, overwrite=True)
    assert Bundle.open(bundle.path).model_path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.vis"]


def test_a_failed_replacement_keeps_the_old_bundle(bundle, tmp_path):
    with pytest.raises(BundleError, match="'surprise'"):
        write_bundle(bundle.path, fields() | {"surprise": 1}, FILES, overwrite=True)
    assert Bundle.open(bundle.path).identity == bundle.identity
    assert [p.name for p in tmp_path.iterdir()] == ["a.vis"]


@pytest.mark.parametrize("name", ["engines/a.plan", "engines/index.json", "engines/.lock", ".DS_Store", "Thumbs.db"])
def test_engines_and_clutter_go_with_a_replaced_bundle(bundle, tmp_path, name):
    put(bundle.path / name)
    write_bundle(bundle.path, fields(), FILES | {MODEL: b"new"}, overwrite=True)
    assert sorted(p.name for p in bundle.path.iterdir()) == sorted([MANIFEST, *FILES])
    assert [p.name for p in tmp_path.iterdir()] == ["a.vis"]


@pytest.mark.parametrize("name", ["README.md", ".git/config", ".gitattributes", "engines/.git", "results.json"])
def test_a_bundle_with_files_of_the_users_own_is_not_replaced(bundle, name):
    put(bundle.path / name)
    with pytest.raises(BundleError, match=f"not replaced.*{name.split('/config')[0]}"):
        write_bundle(bundle.path, fields(), FILES, overwrite=True)
    assert (bundle.path / name).read_bytes() == b"x"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"thesis.tex": "years of work"},
        {"manifest.json": '{"manifest_version": 3, "name": "browser extension"}'},
        {"manifest.json": "not json"},
        {"manifest.json": '{"schema_version": 2, "method": "visolo", "files": {}}', "thesis.tex": "years of work"},
    ],
)
def test_other_folders_are_never_replaced(tmp_path, content):
    target = tmp_path / "mine"
    target.mkdir()
    for name, text in content.items():
        (target / name).write_text(text)
    with pytest.raises(BundleError, match="not replaced"):
        write_bundle(target, fields(), FILES, overwrite=True)
    assert {p.name: p.read_text() for p in target.iterdir()} == content


def test_links_and_files_are_never_replaced(bundle, tmp_path):
    link, file = tmp_path / "link.vis", tmp_path / "file.vis"
    link.symlink_to(bundle.path)
    file.write_text("text")
    for target in (link, file):
        with pytest.raises(BundleError, match="not replaced"):
            write_bundle(target, fields(), FILES, overwrite=True)
    assert link.is_symlink()
    assert file.read_text() == "text"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be created"):
        write_bundle(tmp_path / "file" / "a.vis", fields(), FILES)


def test_a_failed_write_is_typed_and_the_leftovers_of_a_killed_export_are_removed(tmp_path):
    (tmp_path / ".a.vis-abcdef12.part" / "new").mkdir(parents=True)

    def fail():
        with stage_bundle(tmp_path / "a.vis"):
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"cannot write .*a\.vis .*No space left on device"):
        fail()
    assert list(tmp_path.iterdir()) == []
