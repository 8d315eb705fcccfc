"""Bundles open only when everything about them is right."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import edit_json
from tests.visdeploy.plain_bundle import FILES, put
from tests.visdeploy.step_graph import clip, fields, make_bundle, model_bytes
from visdeploy.bundle import (
    CERTIFICATE,
    MANIFEST,
    MODEL,
    MODEL_DATA,
    SELFTEST,
    Bundle,
    seal_bundle,
    write_bundle,
)
from visdeploy.errors import BundleError, VisdeployError


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "a.vis", fields(), FILES)


def edit_manifest(bundle, change):
    edit_json(bundle.path / MANIFEST, change)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def replace_by_link(path, outside, content=None):
    outside.parent.mkdir(exist_ok=True)
    outside.write_bytes(path.read_bytes() if content is None else content)
    path.unlink()
    path.symlink_to(outside)


def replace_by_hard_link(path, outside, content):
    outside.write_bytes(content)
    path.unlink(missing_ok=True)
    os.link(outside, path)


def link_folder(bundle, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (bundle.path / "engines").symlink_to(tmp_path / "elsewhere")


def link_to(path, target):
    path.unlink()
    path.symlink_to(target)


def link_to_pipe(path, pipe):
    os.mkfifo(pipe)
    link_to(path, pipe)


def list_file(name):
    def change(bundle, tmp_path):
        (tmp_path / "secret").write_bytes(b"x")
        entry = {"sha256": "0" * 64, "size": 1}
        edit_manifest(bundle, lambda data: data["files"].update({name: entry}))

    return change


def on_manifest(change):
    return lambda bundle, tmp_path: edit_manifest(bundle, change)


# what is done to a good bundle, and what the error must say
DAMAGE = {
    "folder gone": (lambda b, t: b.path.rename(t / "b.vis"), "is not a bundle.*nothing"),
    "manifest gone": (lambda b, t: (b.path / MANIFEST).unlink(), "is not a bundle.*no manifest"),
    "file missing": (lambda b, t: (b.path / MODEL).unlink(), r"model\.onnx is missing"),
    "flipped byte": (lambda b, t: flip(b.path / MODEL), r"model\.onnx does not match.*sha256"),
    "flipped certificate": (lambda b, t: flip(b.path / CERTIFICATE), r"certificate\.json does not match.*sha256"),
    "truncated": (lambda b, t: (b.path / SELFTEST).write_bytes(b"self"), r"selftest\.npz does not match.*4 B.*8 B"),
    "manifest is garbage": (lambda b, t: (b.path / MANIFEST).write_bytes(b"\xff\xfe{"), "not valid JSON"),
    "manifest is a list": (lambda b, t: (b.path / MANIFEST).write_text("[]"), r"manifest\.json"),
    "manifest nested deep": (lambda b, t: (b.path / MANIFEST).write_text("[" * 100_000), "not valid JSON"),
    "unknown field": (on_manifest(lambda d: d.update(surprise=1)), "'surprise'"),
    "unknown nested field": (on_manifest(lambda d: d["window"].update(surprise=1)), r"'window\.surprise'"),
    "missing field": (on_manifest(lambda d: d.pop("opset")), "'opset'"),
    "older schema": (
        on_manifest(lambda d: d.update(schema_version=1)),
        "older schema.*schema_version 1.*expected: 2.*Export the bundle again from its checkpoint",
    ),
    "newer schema": (on_manifest(lambda d: d.update(schema_version=3)), "newer schema.*schema_version 3"),
    "wrong type": (on_manifest(lambda d: d.update(classes="cat")), "'classes'"),
    "NaN": (on_manifest(lambda d: d["preprocessing"].update(mean=[float("nan"), 0, 0])), "preprocessing.mean"),
    "model not listed": (on_manifest(lambda d: d["files"].pop(MODEL)), r"'files' lacks \['model.onnx'\]"),
    "extra file": (lambda b, t: (b.path / "run.py").write_text("x"), r"does not list.*run\.py"),
    "extra folder": (lambda b, t: (b.path / "sub").mkdir(), "does not list.*sub"),
    "extra file in engines": (lambda b, t: put(b.path / "engines" / "a.so"), r"does not list.*engines/a\.so"),
    "link to other bytes": (lambda b, t: replace_by_link(b.path / MODEL, t / "x", b"m0del"), r"model\.onnx.*sha256"),
    "link to more bytes": (lambda b, t: replace_by_link(b.path / MODEL, t / "x", b"models"), r"model\.onnx.*6 B"),
    "hard link to other bytes": (lambda b, t: replace_by_hard_link(b.path / MODEL, t / "x", b"m0del"), "onnx.*sha256"),
    "hard link that is not listed": (
        lambda b, t: replace_by_hard_link(b.path / "model.data", t / "x", b"x"),
        r"does not list.*model\.data",
    ),
    "hard link as a plan": (
        lambda b, t: replace_by_hard_link(put(b.path / "engines/a.plan"), t / "x", b"x"),
        r"without an entry.*a\.plan",
    ),
    "link to nothing": (lambda b, t: link_to(b.path / MODEL, t / "x"), r"model\.onnx leads nowhere"),
    "link in a circle": (lambda b, t: link_to(b.path / MODEL, MODEL), r"model\.onnx leads nowhere"),
    "link to a folder": (lambda b, t: link_to(b.path / MODEL, t), r"model\.onnx is not a plain file"),
    "link to a pipe": (lambda b, t: link_to_pipe(b.path / MODEL, t / "x"), r"model\.onnx is not a plain file"),
    "manifest is a link to nothing": (lambda b, t: link_to(b.path / MANIFEST, t / "x"), "leads nowhere"),
    "manifest is a link to a pipe": (lambda b, t: link_to_pipe(b.path / MANIFEST, t / "x"), "not a plain file"),
    "manifest is a link to a text": (lambda b, t: replace_by_link(b.path / MANIFEST, t / "x", b"x"), "not valid JSON"),
    "link that is not listed": (
        lambda b, t: (b.path / "model.data").symlink_to(MODEL),
        r"model\.data \(a symbolic link",
    ),
    "engines is a link": (link_folder, "engines \\(a symbolic link"),
    "engine not in the index": (lambda b, t: put(b.path / "engines/sm90.plan"), r"without an entry.*sm90\.plan"),
    "index of engines is garbage": (lambda b, t: put(b.path / "engines/index.json"), r"index\.json cannot be read"),
    "visible weights": (lambda b, t: put(b.path / "model.onnx.data"), r"does not list.*model\.onnx\.data"),
    "results": (lambda b, t: put(b.path / "clip/00000.png"), "does not list.*clip"),
    "archive": (lambda b, t: put(b.path / "README.zip"), r"does not list.*README\.zip"),
    "document folder": (lambda b, t: (b.path / "README.md").mkdir(), r"does not list.*README\.md"),
    "path leaves the folder": (list_file("../secret"), "leaves the bundle folder"),
    "absolute path": (list_file("/etc/hostname"), "leaves the bundle folder"),
    "backslashes": (list_file("..\\secret"), "leaves the bundle folder"),
    "file is a folder": (lambda b, t: _as_folder(b.path / MODEL), "does not list|plain file"),
    "file is a pipe": (lambda b, t: _as_pipe(b.path / MODEL), "plain file"),
}


def _as_folder(path):
    path.unlink()
    path.mkdir()


def _as_pipe(path):
    path.unlink()
    os.mkfifo(path)


def test_what_was_written_is_read(bundle):
    again = Bundle.open(bundle.path)
    assert again.manifest == bundle.manifest
    assert again.identity == bundle.identity
    assert again.certificate() == {"passed": True}
    assert again.model_path.read_bytes() == b"model"
    assert sorted(p.name for p in bundle.path.parent.iterdir()) == ["a.vis"]


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(bundle, tmp_path, case):
    damage, message = DAMAGE[case]
    damage(bundle, tmp_path)
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle.path)


def test_a_file_is_no_bundle(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(BundleError, match="a file"):
        Bundle.open(tmp_path / "x")


HARMLESS = (
    ".DS_Store", "._model.onnx", "Thumbs.db", "desktop.ini", "Icon\r", ".gitattributes", "README.md", "LICENSE",
    "Readme.txt", "model_card.md", "CITATION.cff", ".git/objects/ab/cdef", ".cache/huggingface/download/m.onnx.lock",
    ".nfs0000a1", "engines/.DS_Store", "engines/README.md", "__MACOSX/._a.vis", "@eaDir/x", "lost+found/x",
    "$RECYCLE.BIN/x", "model.onnx:Zone.Identifier", "manifest.json~",
)  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_strays_are_ignored(bundle, name, caplog):
    path = bundle.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    with caplog.at_level("INFO", logger="visdeploy.bundle"):
        opened = Bundle.open(bundle.path)
    assert (opened.manifest, opened.identity) == (bundle.manifest, bundle.identity)
    ignored = name if name.startswith("engines/") else name.split("/")[0]
    assert [r.getMessage() for r in caplog.records] == [f"{bundle.path}: not part of the bundle, ignored: {ignored}"]


@pytest.mark.parametrize("name", [".lock", ".index-abcdefgh.json", ".a.plan", "..a-abcdefgh.plan"])
def test_what_a_killed_writer_of_engines_left_is_ignored(bundle, name, caplog):
    put(bundle.path / "engines" / name)
    with caplog.at_level("INFO", logger="visdeploy.bundle"):
        assert Bundle.open(bundle.path).identity == bundle.identity
    assert not caplog.records


def test_nothing_hidden_is_read(bundle):
    """Hidden files are not opened: a pipe would block, and a link to the root would be followed endlessly."""
    os.mkfifo(bundle.path / ".pipe")
    os.mkfifo(bundle.path / "README.md")
    (bundle.path / ".root").symlink_to("/")
    assert Bundle.open(bundle.path).identity == bundle.identity


def test_a_bundle_of_links_into_a_hubs_cache(bundle, tmp_path):
    for path in list(bundle.path.iterdir()):
        replace_by_link(path, tmp_path / "blobs" / path.name)
    replace_by_link(put(bundle.path / "README.md"), tmp_path / "blobs" / "card")
    opened = Bundle.open(bundle.path)
    assert opened.identity == bundle.identity
    assert opened.certificate() == {"passed": True}
    flip(tmp_path / "blobs" / MODEL)
    with pytest.raises(BundleError, match=r"model\.onnx does not match.*sha256"):
        Bundle.open(bundle.path)


def test_a_bundle_of_hard_links_to_the_listed_bytes(bundle, tmp_path):
    """Tools that remove duplicates, and some caches, create them."""
    for path in list(bundle.path.iterdir()):
        replace_by_hard_link(path, tmp_path / path.name, path.read_bytes())
    assert Bundle.open(bundle.path).identity == bundle.identity


def test_weights_in_a_hubs_cache_are_found_by_the_engine(tmp_path):
    """ONNX Runtime follows links as long as the weights lie beside the graph in the cache."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(model_bytes())
    for tensor in model.graph.initializer:
        if tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT:  # weights; raw bytes alone are stored elsewhere
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save_model(model, tmp_path / MODEL, save_as_external_data=True, location=MODEL_DATA, size_threshold=0)
    files = FILES | {MODEL: tmp_path / MODEL, MODEL_DATA: tmp_path / MODEL_DATA}
    made = write_bundle(tmp_path / "a.vis", fields(), files)
    expected = first_results(made)
    for number, path in enumerate(sorted(made.path.iterdir())):
        replace_by_link(path, tmp_path / "blobs" / f"blob{number}")
    assert expected
    assert first_results(Bundle.open(made.path)) == expected


def test_a_listed_folder_may_be_a_link(tmp_path):
    made = write_bundle(tmp_path / "a.vis", fields(), FILES | {"weights/part.bin": b"1234"})
    (made.path / "weights").rename(tmp_path / "elsewhere")
    (made.path / "weights").symlink_to(tmp_path / "elsewhere")
    assert Bundle.open(made.path).identity == made.identity
    flip(tmp_path / "elsewhere" / "part.bin")
    with pytest.raises(BundleError, match=r"weights/part\.bin does not match"):
        Bundle.open(made.path)


def first_results(bundle):
    from visdeploy import VISPredictor

    with VISPredictor(bundle, device="cpu", threads=1).open_stream() as stream:
        return [(each.track_id, each.label, each.score, each.mask.area) for each in stream.push(clip(1)[0])]


def test_a_bundle_in_a_mounted_volume(bundle):
    """Kubernetes lays a volume out as links through a hidden one, which it exchanges when the volume changes."""
    hidden = bundle.path / "..2026_01_01"
    hidden.mkdir()
    (bundle.path / "..data").symlink_to(hidden.name)
    for path in [p for p in bundle.path.iterdir() if not p.name.startswith(".")]:
        path.rename(hidden / path.name)
        path.symlink_to(f"..data/{path.name}")
    assert Bundle.open(bundle.path).identity == bundle.identity


def with_weights_in(location):
    """Return a model whose only weights are in another file."""
    onnx = pytest.importorskip("onnx")
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value=location)
    return onnx.ModelProto(graph=onnx.GraphProto(initializer=[tensor])).SerializeToString()


@pytest.mark.parametrize("location", ["model.onnx.data", "./model.onnx.data", "weights/part.bin"])
def test_weights_beside_the_graph_are_listed_and_checked(tmp_path, location):
    name = location.removeprefix("./")
    made = write_bundle(tmp_path / "a.vis", fields(), FILES | {MODEL: with_weights_in(location), name: b"1234"})
    assert made.manifest.files[name].size == 4
    flip(made.path / name)
    with pytest.raises(BundleError, match=f"{name} does not match"):
        Bundle.open(made.path)


@pytest.mark.parametrize("link", [replace_by_link, replace_by_hard_link])
@pytest.mark.parametrize("name", ["model.onnx.data", "weights/part.bin"])
def test_weights_that_leave_the_bundle_must_have_the_listed_bytes(tmp_path, link, name):
    made = write_bundle(tmp_path / "a.vis", fields(), FILES | {MODEL: with_weights_in(name), name: b"1234"})
    link(made.path / name, tmp_path / "outside", b"1234")
    assert Bundle.open(made.path).identity == made.identity
    (tmp_path / "outside").write_bytes(b"1235")
    with pytest.raises(BundleError, match=f"{name} does not match.*sha256"):
        Bundle.open(made.path)


@pytest.mark.parametrize(
    "location",
    [
        ".weights",
        "README.md",
        ".cache/w.bin",
        "w.bin",
        "../w.bin",
        "/etc/hostname",
        "",
        "engines/a.plan",
        "model.sig",
        "manifest.json",
        "weights/../../w.bin",
        "a\\..\\..\\w.bin",
    ],
)
def test_no_unchecked_file_is_within_reach_of_the_graph(bundle, tmp_path, location):
    if location.startswith((".w", "R", ".c")):
        (bundle.path / location).parent.mkdir(exist_ok=True)
        (bundle.path / location).write_bytes(b"1234")
    (bundle.path / MODEL).write_bytes(with_weights_in(location))
    seal_bundle(bundle.path, fields())
    edit_manifest(bundle, lambda data: data["files"].pop("README.md", None))
    with pytest.raises(BundleError, match="reads weights from a file that the manifest does not list") as caught:
        Bundle.open(bundle.path)
    assert repr(location) in str(caught.value)


def test_a_sealed_folder_lists_what_is_part_of_the_bundle(bundle):
    for name in (".DS_Store", "Thumbs.db", ".git/config", "engines/.lock"):
        (bundle.path / name).parent.mkdir(exist_ok=True)
        (bundle.path / name).write_bytes(b"x")
    assert seal_bundle(bundle.path, fields()).identity == bundle.identity
    assert Bundle.open(bundle.path).identity == bundle.identity


@pytest.mark.parametrize("content", [b"[]", b"{", b"\xff", b"null"])
def test_bad_certificates(tmp_path, content):
    bundle = write_bundle(tmp_path / "a.vis", fields(), FILES | {CERTIFICATE: content})
    with pytest.raises(BundleError, match=r"certificate\.json"):
        bundle.certificate()


def with_digest(bundle):
    """Record the digest of a bundle's manifest in its certificate."""
    (bundle.path / CERTIFICATE).write_text(json.dumps({"manifest": bundle.digest}))
    seal_bundle(bundle.path, fields())
    return Bundle.open(bundle.path)


EDITS = {
    "threshold": lambda data: data["decode"].update(overlap_threshold=0.1),
    "mean": lambda data: data["preprocessing"].update(mean=[100.0, 110.0, 121.0]),
    "class": lambda data: data.update(classes=[*data["classes"][:-1], "other"]),
    "variant": lambda data: data.update(variant="another"),
    "date": lambda data: data["provenance"].update(created="2026-01-02T00:00:00+00:00"),
    "default value": lambda data: data.update(precision="fp16"),
    "tolerance": lambda data: data["tolerance"]["default"].update(atol=0.5),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_manifest_that_is_not_its_certificates_is_refused(bundle, edit):
    sealed = with_digest(bundle)
    edit_manifest(sealed, EDITS[edit])
    with pytest.raises(BundleError, match=r"manifest\.json was changed after its certificate was made.*expected: "):
        Bundle.open(sealed.path)


def test_the_layout_of_a_manifest_does_not_matter(bundle):
    sealed = with_digest(bundle)
    data = json.loads((bundle.path / MANIFEST).read_bytes())
    (bundle.path / MANIFEST).write_text(json.dumps(dict(reversed(data.items()))))
    assert Bundle.open(sealed.path).digest == sealed.digest


def test_a_manifest_or_certificate_of_any_size(bundle):
    for name in (CERTIFICATE, MANIFEST):
        os.truncate(bundle.path / name, 2**31)
        with pytest.raises(BundleError, match=f"{name} (is too large|does not match)"):
            Bundle.open(bundle.path)
    with pytest.raises(BundleError, match="is too large"):
        bundle.certificate()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("real") / "a.vis")


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), name=st.sampled_from([MANIFEST, *FILES]))
def test_no_flipped_bit_passes_or_crashes(real, place, bit, name):
    path = real.path / name
    good = path.read_bytes()
    bad = bytearray(good)
    bad[int(place * len(bad))] ^= 1 << bit
    try:
        path.write_bytes(bytes(bad))
        try:
            opened = Bundle.open(real.path)
        except VisdeployError:
            pass
        else:  # a flip inside a free text of the manifest is another, valid manifest
            assert name == MANIFEST
            assert opened.identity != real.identity or opened.manifest == real.manifest
    finally:
        path.write_bytes(good)
