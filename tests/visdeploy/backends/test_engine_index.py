"""The index of engines: its content, errors for damaged files, and the engine found for a target."""

import json
import os
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.support import edit_json
from tests.visdeploy.backends.engines import certificate, entry, ranges, target
from visdeploy.backends.engine_index import EngineIndex, read_index
from visdeploy.errors import BundleError, VisdeployError


def put(folder, index):
    (folder / "engines").mkdir(exist_ok=True)
    text = index.model_dump_json() if isinstance(index, EngineIndex) else index
    (folder / "engines" / "index.json").write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / "engines" / "index.json"


def test_no_index_is_an_empty_one(tmp_path):
    assert read_index(tmp_path) == EngineIndex()
    (tmp_path / "engines").mkdir()
    assert read_index(tmp_path).entries == []


NAMES = st.text("aZ09._+-", max_size=8).map(lambda rest: f"a{rest}.plan")
SIZES = st.lists(st.integers(1, 1 << 40), min_size=3, max_size=3).map(lambda sizes: tuple(sorted(sizes)))
TIMES = st.datetimes(timezones=st.sampled_from([timezone.utc, timezone(timedelta(hours=5, minutes=30))]))
WORST = st.floats(0) | st.just(float("inf"))


@st.composite
def entries(draw):
    failed = certificate().outputs[0].model_copy(update={"worst": draw(WORST), "passed": False})
    return entry(
        draw(NAMES),
        draw(st.binary(min_size=1, max_size=8)),
        engine=draw(st.sampled_from(["tensorrt", "tensorrt-rtx"])),
        gpu=draw(st.text(min_size=1)),
        driver_version=draw(st.none() | st.just("580.82.07")),
        precision=draw(st.sampled_from(["fp32", "tf32", "fp16", "bf16", "int8"])),
        hardware_compatibility=draw(st.sampled_from(["none", "same_compute_capability", "ampere_plus"])),
        version_compatible=draw(st.booleans()),
        profile={s: ranges(x=r)["x"] for s, r in draw(st.dictionaries(st.sampled_from("bhtw"), SIZES)).items()},
        created=draw(TIMES),
        certificate=certificate(outputs=[failed]) if draw(st.booleans()) else certificate(),
    )


@given(made=st.lists(entries(), max_size=4, unique_by=lambda each: each.file.lower()))
def test_what_was_written_is_read(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("bundle")
    put(folder, EngineIndex(entries=made))
    assert read_index(folder) == EngineIndex(entries=made)


def on_index(change):
    return lambda path: edit_json(path, change)


def on_entry(**changes):
    return on_index(lambda data: data["entries"][0].update(changes))


def on_range(**changes):
    return on_index(lambda data: data["entries"][0]["profile"]["height"].update(changes))


def rename(fields, old, new):
    fields[new] = fields.pop(old)


def as_pipe(path):
    path.unlink()
    os.mkfifo(path)


# what is done to a good index, and what the error must say
DAMAGE = {
    "garbage": (lambda p: p.write_bytes(b"\xff{"), "cannot be read"),
    "empty": (lambda p: p.write_bytes(b""), "cannot be read"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-20]), "cannot be read"),
    "nested deep": (lambda p: p.write_text("[" * 100_000), "cannot be read"),
    "another encoding": (lambda p: p.write_bytes(p.read_text().encode("utf-16")), "cannot be read"),
    "a list": (lambda p: p.write_text("[]"), "malformed.*list.*a JSON object"),
    "a pipe": (as_pipe, "not a plain file"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "not a plain file"),
    "a link to nothing": (lambda p: (p.unlink(), p.symlink_to("x")), "leads nowhere"),
    "newer schema": (
        on_index(lambda d: d.update(schema_version=2, news=1)),
        "newer schema.*schema_version 2.*most 1",
    ),
    "older schema": (on_index(lambda d: d.update(schema_version=0)), r"'schema_version'.*seen '0'"),
    "unknown field": (on_index(lambda d: d.update(surprise=1)), r"'surprise'.*seen '1'"),
    "unknown field of an entry": (on_entry(surprise="x"), r"'entries\.0\.surprise'.*seen 'x'"),
    "unknown field of a certificate": (
        on_index(lambda d: d["entries"][0]["certificate"].update(surprise=1)),
        r"'entries\.0\.certificate\.surprise'",
    ),
    "missing field": (on_index(lambda d: d["entries"][0].pop("sha256")), r"'entries\.0\.sha256': Field required"),
    "no certificate": (on_entry(certificate=None), r"'entries\.0\.certificate'"),
    "entries are an object": (on_index(lambda d: d.update(entries={})), "'entries'"),
    "size is a text": (on_entry(size="4"), r"'entries\.0\.size'.*seen '4'"),
    "size is true": (on_entry(size=True), r"'entries\.0\.size'.*seen 'True'"),
    "size is nothing": (on_entry(size=0), r"'entries\.0\.size'.*seen '0'"),
    "sha256 too short": (on_entry(sha256="ab"), r"'entries\.0\.sha256'.*seen 'ab'"),
    "unknown engine": (on_entry(engine="openvino"), r"'entries\.0\.engine'.*seen 'openvino'"),
    "unknown precision": (on_entry(precision="fp8"), r"'entries\.0\.precision'.*'int8'.*seen 'fp8'"),
    "unknown compatibility": (on_entry(hardware_compatibility="all"), r"'entries\.0\.hardware_compatibility'"),
    "capability": (on_entry(compute_capability="sm90"), r"'entries\.0\.compute_capability'.*seen 'sm90'"),
    "no GPU": (on_entry(gpu=""), r"'entries\.0\.gpu'"),
    "time without zone": (on_entry(created="2026-01-01T00:00:00"), r"'entries\.0\.created'"),
    "no time": (on_entry(created="yesterday"), r"'entries\.0\.created'.*seen 'yesterday'"),
    "sizes fall": (on_range(typical=5), r"'entries\.0\.profile\.height'.*ascending order"),
    "negative size": (on_range(minimum=-1), r"'entries\.0\.profile\.height\.minimum'.*seen '-1'"),
    "infinite size": (on_range(maximum=float("inf")), r"'entries\.0\.profile\.height\.maximum'"),
    "symbol": (
        on_entry(profile={"Height": {"minimum": 1, "typical": 1, "maximum": 1}}),
        r"entries\.0\.profile\.Height",
    ),
    "two entries of one file": (on_index(lambda d: d["entries"].append(d["entries"][0])), "'entries'.*two entries"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(tmp_path, case):
    damage, message = DAMAGE[case]
    path = put(tmp_path, EngineIndex(entries=[entry()]))
    damage(path)
    with pytest.raises(BundleError, match=message) as caught:
        read_index(tmp_path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    "file",
    ["../a.plan", "/a.plan", "sub/a.plan", "..\\a.plan", ".a.plan", "..plan", ".plan", "a.so", "a.plan\n", "a.PLAN",
     "a b.plan", "ä.plan", "_a.plan", "x" * 124 + ".plan", ""],
)  # fmt: skip
def test_a_file_is_a_name_inside_the_folder(tmp_path, file):
    path = put(tmp_path, EngineIndex(entries=[entry()]))
    edit_json(path, lambda data: data["entries"][0].update(file=file))
    with pytest.raises(BundleError, match=r"'entries\.0\.file'"):
        read_index(tmp_path)


def test_names_differ_by_more_than_case():
    with pytest.raises(ValidationError, match=r"two entries: a\.plan"):
        EngineIndex(entries=[entry("a.plan"), entry("A.plan")])


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_no_flipped_bit_crashes(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("bundle")
    good = EngineIndex(entries=[entry("a.plan"), entry("b.plan")]).model_dump_json().encode()
    bad = bytearray(good)
    bad[int(place * len(bad))] ^= 1 << bit
    put(folder, bytes(bad))
    try:
        read = read_index(folder)
    except VisdeployError:
        return
    assert json.loads(read.model_dump_json()) == json.loads(read_index(folder).model_dump_json())


def test_an_index_does_not_change():
    made = entry()
    for change in ({"file": "b.plan"}, {"sha256": "0" * 64}):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(made, *next(iter(change.items())))


# what is wanted, and the reason why `entry()` cannot serve it; "" where it can
WANTED = {
    "the same": ({}, {}, ""),
    "sizes not known yet": ({}, {"sizes": {}}, ""),
    "smallest": ({}, {"sizes": {"height": 32, "width": 32}}, ""),
    "largest": ({}, {"sizes": {"height": 640, "width": 1280}}, ""),
    "too small": ({}, {"sizes": {"height": 31}}, "it accepts height from 32 to 640, not 31"),
    "too large": ({}, {"sizes": {"width": 1281}}, "it accepts width from 32 to 1280, not 1281"),
    "another symbol": ({}, {"sizes": {"frames": 5}}, "its profile has no frames"),
    "another engine": ({}, {"engine": "tensorrt-rtx"}, "it is for tensorrt, not tensorrt-rtx"),
    "another version": ({}, {"version": "11.4.0.13"}, "it was built by version 11.4.0.12, this is 11.4.0.13"),
    "another GPU": ({}, {"gpu": "NVIDIA H100"}, "it was built for NVIDIA H200, this is NVIDIA H100"),
    "another precision": ({}, {"precision": "fp32"}, "its precision is fp16, not fp32"),
    "another model": ({}, {"model_sha256": "b" * 64}, "it was built from another model.onnx"),
    "failed certificate": (
        {"certificate": certificate(failures=["scores: 2 beyond 1"])}, {},
        "its certificate failed (scores: 2 beyond 1)",
    ),
    "later version": ({"version_compatible": True}, {"version": "11.10.0.1"}, ""),
    "earlier version": ({"version_compatible": True}, {"version": "11.3.9"}, "version 11.4.0.12, this is 11.3.9"),
    "next major version": ({"version_compatible": True}, {"version": "12.0.0"}, "version 11.4.0.12, this is 12.0.0"),
    "same capability": ({"hardware_compatibility": "same_compute_capability"}, {"gpu": "NVIDIA H100"}, ""),
    "other capability": (
        {"hardware_compatibility": "same_compute_capability"}, {"gpu": "NVIDIA B200", "compute_capability": "10.0"},
        "it was built for NVIDIA H200 and others of compute capability 9.0, this is NVIDIA B200",
    ),
    "Ampere": ({"hardware_compatibility": "ampere_plus"}, {"gpu": "NVIDIA A10", "compute_capability": "8.6"}, ""),
    "Blackwell": ({"hardware_compatibility": "ampere_plus"}, {"gpu": "NVIDIA B200", "compute_capability": "10.0"}, ""),
    "Turing": (
        {"hardware_compatibility": "ampere_plus"}, {"gpu": "NVIDIA T4", "compute_capability": "7.5"},
        "it was built for NVIDIA H200 and others with compute capability 8.0 or higher, this is NVIDIA T4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WANTED)
def test_find(case):
    changes, wanted, reason = WANTED[case]
    made = entry(**changes)
    found = EngineIndex(entries=[made]).find(target(**wanted))
    if reason:
        assert found.usable == ()
        assert len(found.refused) == 1
        assert found.refused[0].startswith("engines/sm90-fp16.plan is not used: ")
        assert found.refused[0].endswith(reason)
    else:
        assert found.usable == (made,)
        assert found.refused == ()


def test_every_reason_is_given():
    wanted = target(engine="tensorrt-rtx", precision="fp32", sizes={"height": 1, "width": 9999})
    (sentence,) = EngineIndex(entries=[entry()]).find(wanted).refused
    assert sentence.count(";") == 3


def test_the_engine_tuned_for_the_nearest_sizes_comes_first_then_the_newest():
    small = entry("small.plan", profile=ranges(height=(1, 64, 999), width=(1, 96, 999)))
    large = entry("large.plan", profile=ranges(height=(1, 640, 999), width=(1, 960, 999)))
    newest = entry("newest.plan", profile=large.profile)
    other = entry("other.plan", precision="int8")
    index = EngineIndex(entries=[small, large, newest, other])

    def files(**sizes):
        return [each.file for each in index.find(target(sizes=sizes)).usable]

    assert files(height=96, width=128) == ["small.plan", "newest.plan", "large.plan"]
    assert files(height=500, width=800) == ["newest.plan", "large.plan", "small.plan"]
    assert files() == ["newest.plan", "large.plan", "small.plan"]
    assert [s.split()[0] for s in index.find(target()).refused] == ["engines/other.plan"]


@given(st.data())
def test_an_engine_is_found_for_exactly_the_sizes_of_its_profile(data):
    low, typical, high = data.draw(st.lists(st.integers(1, 60), min_size=3, max_size=3).map(sorted))
    size = data.draw(st.integers(0, 70))
    index = EngineIndex(entries=[entry(profile=ranges(height=(low, typical, high)))])
    assert bool(index.find(target(sizes={"height": size})).usable) == (low <= size <= high)


def test_times_keep_their_zone(tmp_path):
    made = entry(created=datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    put(tmp_path, EngineIndex(entries=[made]))
    assert read_index(tmp_path).entries[0].created == datetime(2026, 5, 1, 10, tzinfo=timezone.utc)
