"""A signed bundle opens with the key of its signer, and with no change, other key or unsigned engine."""

import importlib
import json
import os
import shutil
import socket

import pytest

from tests.support import edit_json
from tests.visdeploy.backends.engines import entry
from tests.visdeploy.plain_bundle import FILES, put
from tests.visdeploy.step_graph import fields
from visdeploy.backends.engine_files import checked_plan, remove_entry, write_entry
from visdeploy.bundle import MANIFEST, MODEL, Bundle, seal_bundle, write_bundle
from visdeploy.bundle_files import INDEX, SIGNATURE
from visdeploy.errors import BundleError, ConfigError, OutputError
from visdeploy.signing.bundles import sign

COVERED = [
    "certificate.json", "engines/a.plan", "engines/index.json", "manifest.json", "model.onnx", "selftest.npz",
    "weights/part.bin",
]  # fmt: skip


def flip(path, place=0.5):
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(bytes(data))


def test_a_signed_bundle_opens_with_its_key(signed, keys, monkeypatch):
    monkeypatch.setattr(socket, "socket", None)  # no network is used
    opened = Bundle.open(signed.path, key=keys.public)
    assert opened == signed
    assert sorted(opened.signed) == COVERED
    assert Bundle.open(signed.path).signed is None


def test_a_bundle_without_engines(tmp_path, keys):
    made = write_bundle(tmp_path / "b.vis", fields(), FILES)
    assert sign(made.path, keys.private) == made.path / SIGNATURE
    assert INDEX not in Bundle.open(made.path, key=keys.public).signed


@pytest.mark.parametrize("place", [0, 0.3, 0.7, 0.999])
@pytest.mark.parametrize("name", [*COVERED, SIGNATURE])
def test_no_flipped_byte_passes(signed, keys, name, place):
    flip(signed.path / name, place)
    with pytest.raises(BundleError):
        Bundle.open(signed.path, key=keys.public)


def seal_again(folder):
    """Change the graph, and make manifest and checksums agree with it."""
    (folder / MODEL).write_bytes(b"other")
    seal_bundle(folder, fields())


CHANGES = {
    "not signed": (lambda b: (b / SIGNATURE).unlink(), r"a\.vis is not signed.*no model\.sig.*visdeploy sign"),
    "exported again": (seal_again, r"changed: manifest\.json, model\.onnx.*Get the bundle anew"),
    "layout of the manifest": (
        lambda b: (b / MANIFEST).write_text(json.dumps(json.loads((b / MANIFEST).read_text()))),
        "not what was signed.*changed: manifest.json",
    ),
    "engine added": (
        lambda b: write_entry(b, entry("b.plan", b"other"), b"other"),
        r"changed: engines/index\.json; not signed: engines/b\.plan.*sign it again: visdeploy sign .*--overwrite",
    ),
    "engine replaced": (
        lambda b: write_entry(b, entry("a.plan", b"other"), b"other"),
        r"changed: engines/a\.plan, engines/index\.json.*sign it again",
    ),
    "engine removed": (
        lambda b: remove_entry(b, "a.plan"),
        r"changed: engines/index\.json; signed, but missing: engines/a\.plan.*sign it again",
    ),
    "plan deleted": (lambda b: (b / "engines/a.plan").unlink(), r"signed, but missing: engines/a\.plan"),
    "plan changed": (lambda b: flip(b / "engines/a.plan"), r"a\.plan does not match the engine index.*sha256"),
    "plan truncated": (lambda b: (b / "engines/a.plan").write_bytes(b"p"), r"a\.plan does not match.*1 B.*4 B"),
    "engines deleted": (lambda b: shutil.rmtree(b / "engines"), "signed, but missing: engines/a.plan, engines/index"),
    "index edited": (
        lambda b: edit_json(b / INDEX, lambda data: data["entries"][0].update(gpu="another")),
        "changed: engines/index.json",
    ),
    "weights changed": (lambda b: flip(b / "weights/part.bin"), "part.bin does not match its manifest"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_differs_from_the_signature_is_named(signed, keys, case):
    change, message = CHANGES[case]
    change(signed.path)
    with pytest.raises(BundleError, match=message):
        Bundle.open(signed.path, key=keys.public)


def test_an_engine_that_is_added_needs_a_new_signature(signed, keys):
    index = write_entry(signed.path, entry("b.plan", b"other"), b"other")
    assert Bundle.open(signed.path).identity == signed.identity, "without a key nothing changes"
    assert checked_plan(signed.path, index.entries[1]) == b"other"
    with pytest.raises(BundleError, match=r"not signed: engines/b\.plan"):
        Bundle.open(signed.path, key=keys.public)
    sign(signed.path, keys.private, overwrite=True)
    opened = Bundle.open(signed.path, key=keys.public)
    assert checked_plan(signed.path, index.entries[1], signed=opened.signed) == b"other"


def test_an_engine_that_is_added_after_opening_is_not_read(signed, keys):
    opened = Bundle.open(signed.path, key=keys.public)
    index = write_entry(signed.path, entry("b.plan", b"other"), b"other")
    assert checked_plan(signed.path, index.entries[0], signed=opened.signed) == b"plan"
    with pytest.raises(BundleError, match=r"b\.plan is not signed.*--overwrite.*or remove the engine"):
        checked_plan(signed.path, index.entries[1], signed=opened.signed)


def test_the_signature_of_another_bundle(signed, tmp_path, keys):
    other = write_bundle(tmp_path / "b.vis", fields(), FILES | {MODEL: b"other"})
    shutil.copy(signed.path / SIGNATURE, other.path)
    with pytest.raises(BundleError, match=r"not what was signed.*changed: manifest\.json, model\.onnx"):
        Bundle.open(other.path, key=keys.public)


def test_another_key(signed, keys):
    with pytest.raises(BundleError, match=r"made with another key \(seen: key \w{12}….*other\.pub\.pem.*signer"):
        Bundle.open(signed.path, key=keys.other_public)
    sign(signed.path, keys.other_private, overwrite=True)
    assert Bundle.open(signed.path, key=keys.other_public) == signed


def test_a_signature_is_replaced_only_on_request(signed, keys):
    before = (signed.path / SIGNATURE).read_bytes()
    with pytest.raises(OutputError, match=r"model\.sig exists already.*overwrite=True"):
        sign(signed.path, keys.other_private)
    assert (signed.path / SIGNATURE).read_bytes() == before
    assert not [name for name in os.listdir(signed.path) if name.startswith(".")]


def test_a_failed_signature_keeps_the_old_one(signed, keys, monkeypatch):
    before = (signed.path / SIGNATURE).read_bytes()

    def fail(path, *_):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("visdeploy.signing.bundles.write_signature", fail)
    with pytest.raises(OutputError, match=r"cannot write .*model\.sig .*No space left"):
        sign(signed.path, keys.private, overwrite=True)
    assert (signed.path / SIGNATURE).read_bytes() == before
    assert sorted(os.listdir(signed.path)) == sorted([MANIFEST, *FILES, "engines", SIGNATURE, "weights"])


def test_a_killed_writer_leaves_nothing_that_stops_others(unsigned, keys):
    put(unsigned.path / ".model-abcdefgh.part.sig")
    assert Bundle.open(unsigned.path) == unsigned
    sign(unsigned.path, keys.private)
    put(unsigned.path / ".model-abcdefgh.part.sig")
    write_bundle(unsigned.path, fields(), FILES, overwrite=True)
    assert sorted(os.listdir(unsigned.path)) == sorted([MANIFEST, *FILES])


@pytest.mark.parametrize("name", [MODEL, "engines/a.plan"])
def test_a_damaged_bundle_is_not_signed(unsigned, keys, name):
    flip(unsigned.path / name)
    with pytest.raises(BundleError, match="does not match"):
        sign(unsigned.path, keys.private)
    assert not (unsigned.path / SIGNATURE).exists()


@pytest.mark.parametrize("name", [".key.pem", "LICENSE"])
def test_a_private_key_in_the_bundle(unsigned, keys, tmp_path, name):
    shutil.copy(keys.private, unsigned.path / name)
    (tmp_path / "link.pem").symlink_to(unsigned.path / name)
    for path in (unsigned.path / name, tmp_path / "link.pem"):
        with pytest.raises(ConfigError, match="lies in the bundle"):
            sign(unsigned.path, path)


def test_a_copied_or_renamed_bundle_stays_signed(signed, keys, tmp_path):
    shutil.copytree(signed.path, tmp_path / "copy")
    signed.path.rename(tmp_path / "renamed.vis")
    for name in ("copy", "renamed.vis"):
        assert Bundle.open(tmp_path / name, key=keys.public).identity == signed.identity


def test_a_folder_whose_name_is_not_unicode(unsigned, keys, monkeypatch):
    folder = unsigned.path.rename(os.fsdecode(os.fsencode(unsigned.path.parent) + b"/\xff.vis"))
    sign(folder, keys.private)
    monkeypatch.chdir(folder)
    assert Bundle.open(".", key=keys.public).identity == unsigned.identity
    sign(".", keys.private, overwrite=True)


def test_documents_are_not_covered(signed, keys):
    for name in ("README.md", ".gitattributes", "LICENSE"):
        put(signed.path / name)
    assert sorted(Bundle.open(signed.path, key=keys.public).signed) == COVERED
    sign(signed.path, keys.private, overwrite=True)
    (signed.path / "README.md").write_text("another")
    assert sorted(Bundle.open(signed.path, key=keys.public).signed) == COVERED


def into_cache(folder, blobs):
    """Lay a bundle out as model hubs do: every file is a link to a blob."""
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        path.rename(blobs / str(number))
        path.symlink_to(blobs / str(number))


def test_a_signed_bundle_of_links_into_a_hubs_cache(signed, keys, tmp_path):
    into_cache(signed.path, tmp_path / "blobs")
    assert Bundle.open(signed.path, key=keys.public).identity == signed.identity
    for name in (MODEL, "engines/a.plan", SIGNATURE):
        blob = (signed.path / name).readlink()
        flip(blob)
        with pytest.raises(BundleError, match=r"does not match|not a valid signature"):
            Bundle.open(signed.path, key=keys.public)
        flip(blob)


def test_signing_in_a_hubs_cache_changes_no_blob(signed, keys, tmp_path):
    into_cache(signed.path, tmp_path / "blobs")
    before = {path.name: path.read_bytes() for path in (tmp_path / "blobs").iterdir()}
    sign(signed.path, keys.other_private, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "blobs").iterdir()} == before
    assert Bundle.open(signed.path, key=keys.other_public) == signed
    assert not (signed.path / SIGNATURE).is_symlink()


def test_an_export_replaces_a_signed_bundle_with_an_unsigned_one(signed, keys):
    write_bundle(signed.path, fields(), FILES, overwrite=True)
    with pytest.raises(BundleError, match="is not signed"):
        Bundle.open(signed.path, key=keys.public)


def test_a_signature_is_never_listed(signed, tmp_path):
    assert SIGNATURE not in seal_bundle(signed.path, fields()).manifest.files
    with pytest.raises(BundleError, match=r"names.*model\.sig"):
        write_bundle(tmp_path / "b.vis", fields(), FILES | {SIGNATURE: b"x"})
    entry = {"sha256": "0" * 64, "size": 1}
    edit_json(signed.path / MANIFEST, lambda data: data["files"].update({SIGNATURE: entry}))
    with pytest.raises(BundleError, match=r"lists the signature model\.sig"):
        Bundle.open(signed.path)


def test_the_tool_of_the_package_accepts_the_signature(signed, keys):
    verifying = importlib.import_module("model_signing.verifying")
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys.public)
    config.verify(signed.path, signed.path / SIGNATURE)
    flip(signed.path / MODEL)
    with pytest.raises(ValueError, match=r"Hash mismatch for 'model\.onnx'"):
        config.verify(signed.path, signed.path / SIGNATURE)
