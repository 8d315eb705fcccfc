"""Plans of engines: added, replaced and removed by several processes, by killed ones too, and never read unchecked."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.support import edit_json
from tests.visdeploy.backends.engines import certificate, entry, target
from tests.visdeploy.step_graph import fields
from visdeploy.backends.engine_files import check_engines, checked_plan, remove_entry, write_entry
from visdeploy.backends.engine_index import EngineIndex, read_index
from visdeploy.bundle import CERTIFICATE, MODEL, SELFTEST, Bundle, write_bundle
from visdeploy.errors import BundleError
from visdeploy.manifest import EngineTolerance, Tolerance, Tolerances

OLD, NEW = b"the old plan" * 1000, b"a newer plan" * 1500
A, B = entry("a.plan", OLD), entry("b.plan", b"another")
NEW_A = entry("a.plan", NEW)


@pytest.fixture
def bundle(tmp_path):
    files = {MODEL: b"model", SELFTEST: b"selftest", CERTIFICATE: b"{}"}
    return write_bundle(tmp_path / "a.vis", fields(), files)


def content(folder):
    return sorted(path.name for path in (folder / "engines").iterdir())


def readable(folder):
    """Return the file names of the engines that a reader finds, after checking that each is readable."""
    index = read_index(Bundle.open(folder).path)
    for each in index.entries:
        checked_plan(folder, each)
    return [each.file for each in index.entries]


@pytest.mark.parametrize("as_file", [False, True])
def test_what_was_written_is_read(bundle, tmp_path, as_file):
    (tmp_path / "built").write_bytes(OLD)
    index = write_entry(bundle.path, A, tmp_path / "built" if as_file else OLD)
    assert index == read_index(bundle.path) == EngineIndex(entries=[A])
    assert checked_plan(bundle.path, A) == OLD
    assert content(bundle.path) == [".lock", "a.plan", "index.json"]
    assert (tmp_path / "built").exists()
    assert (bundle.path / "engines" / "a.plan").stat().st_mode & 0o600 == 0o600


def test_the_bundle_stays_what_it_was(bundle):
    write_entry(bundle.path, A, OLD)
    again = Bundle.open(bundle.path)
    assert (again.manifest, again.identity) == (bundle.manifest, bundle.identity)


def test_the_newest_comes_last_and_a_name_is_replaced(bundle):
    write_entry(bundle.path, A, OLD)
    write_entry(bundle.path, B, b"another")
    assert write_entry(bundle.path, NEW_A, NEW).entries == [B, NEW_A]
    assert checked_plan(bundle.path, NEW_A) == NEW
    with pytest.raises(BundleError, match=r"a\.plan does not match the engine index.*18000 B.*expected: 12000 B"):
        checked_plan(bundle.path, A)
    assert readable(bundle.path) == ["b.plan", "a.plan"]
    assert write_entry(bundle.path, NEW_A, NEW).entries == [B, NEW_A]
    assert content(bundle.path) == [".lock", "a.plan", "b.plan", "index.json"]


def test_removing(bundle):
    write_entry(bundle.path, A, OLD)
    write_entry(bundle.path, B, b"another")
    assert remove_entry(bundle.path, "a.plan").entries == [B]
    assert content(bundle.path) == [".lock", "b.plan", "index.json"]
    with pytest.raises(BundleError, match=r"has no entry for this engine.*a\.plan.*expected: b\.plan"):
        remove_entry(bundle.path, "a.plan")
    (bundle.path / "engines" / "b.plan").unlink()
    assert remove_entry(bundle.path, "b.plan").entries == []
    assert readable(bundle.path) == []
    with pytest.raises(BundleError, match="expected: no engine"):
        remove_entry(bundle.path, "../manifest.json")


@pytest.mark.parametrize("plan", [b"", OLD[:-1], OLD[:-1] + b"!", Path("a folder"), Path("nothing")])
def test_a_plan_is_the_one_that_its_entry_describes(bundle, plan):
    (bundle.path.parent / "a folder").mkdir()
    write_entry(bundle.path, B, b"another")
    with pytest.raises(BundleError, match=r"does not match its entry|cannot be written"):
        write_entry(bundle.path, A, bundle.path.parent / plan if isinstance(plan, Path) else plan)
    assert content(bundle.path) == [".lock", "b.plan", "index.json"]
    assert readable(bundle.path) == ["b.plan"]


def test_names_that_differ_by_case_are_refused_before_anything_is_written(bundle):
    write_entry(bundle.path, A, OLD)
    with pytest.raises(BundleError, match=r"cannot be written.*two entries: a\.plan"):
        write_entry(bundle.path, entry("A.plan", NEW), NEW)
    assert content(bundle.path) == [".lock", "a.plan", "index.json"]


def test_a_damaged_index_is_not_replaced(bundle):
    write_entry(bundle.path, A, OLD)
    (bundle.path / "engines" / "index.json").write_text("{")
    for work in (lambda: write_entry(bundle.path, B, b"another"), lambda: remove_entry(bundle.path, "a.plan")):
        with pytest.raises(BundleError, match=r"index\.json cannot be read.*remove the folder 'engines'"):
            work()
    assert (bundle.path / "engines" / "index.json").read_text() == "{"


def test_places_that_cannot_be_written(bundle, tmp_path):
    with pytest.raises(BundleError, match=r"engines cannot be written.*No such file"):
        write_entry(tmp_path / "nothing", A, OLD)
    (tmp_path / "engines").write_text("a file")
    with pytest.raises(BundleError, match="cannot be written"):
        write_entry(tmp_path, A, OLD)
    (tmp_path / "elsewhere").mkdir()
    (bundle.path / "engines").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="symbolic link"):
        write_entry(bundle.path, A, OLD)
    with pytest.raises(BundleError, match="symbolic link"):
        checked_plan(bundle.path, A)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def link(path):
    shutil.move(path, path.parent.parent.parent / "outside")
    path.symlink_to(path.parent.parent.parent / "outside")


def hard_link_to_other_bytes(path):
    outside = path.parent.parent.parent / "outside"
    outside.write_bytes(OLD[:-1] + b"x")
    path.unlink()
    os.link(outside, path)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


# what is done to a good plan, and what the error must say
DAMAGE = {
    "missing": (Path.unlink, r"a\.plan is missing"),
    "flipped bit": (flip, r"a\.plan does not match the engine index.*sha256"),
    "truncated": (lambda p: p.write_bytes(OLD[:-1]), r"does not match the engine index.*11999 B.*expected: 12000 B"),
    "longer": (lambda p: p.write_bytes(OLD + b"x"), r"does not match the engine index.*12001 B"),
    "link": (link, r"a\.plan cannot be opened.*Links are refused"),
    "link to nothing": (lambda p: (p.unlink(), p.symlink_to("nothing")), r"a\.plan cannot be opened.*Links"),
    "hard link to other bytes": (hard_link_to_other_bytes, r"does not match the engine index.*sha256"),
    "pipe": (pipe, r"a\.plan is not a plain file"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_a_damaged_plan_is_never_handed_out(bundle, case):
    damage, message = DAMAGE[case]
    write_entry(bundle.path, A, OLD)
    damage(bundle.path / "engines" / "a.plan")
    with pytest.raises(BundleError, match=message) as caught:
        checked_plan(bundle.path, A)
    assert caught.value.hint
    assert Bundle.open(bundle.path).identity == bundle.identity  # other engines, and the CPU, still serve


def test_a_folder_in_place_of_a_plan(bundle):
    write_entry(bundle.path, A, OLD)
    plan = bundle.path / "engines" / "a.plan"
    plan.unlink()
    plan.mkdir()
    with pytest.raises(BundleError, match=r"a\.plan is not a plain file"):
        checked_plan(bundle.path, A)
    with pytest.raises(BundleError, match=r"does not list.*engines/a\.plan"):
        Bundle.open(bundle.path)


def test_a_damaged_plan_is_built_again(bundle):
    write_entry(bundle.path, A, OLD)
    flip(bundle.path / "engines" / "a.plan")
    write_entry(bundle.path, A, OLD)
    assert checked_plan(bundle.path, A) == OLD


def test_a_plan_that_the_index_does_not_name(bundle):
    write_entry(bundle.path, A, OLD)
    (bundle.path / "engines" / "c.plan").write_bytes(OLD)
    with pytest.raises(BundleError, match=r"without an entry in its index.*seen: c\.plan.*build_engine"):
        Bundle.open(bundle.path)
    write_entry(bundle.path, entry("c.plan", NEW), NEW)
    assert readable(bundle.path) == ["a.plan", "c.plan"]


def test_an_engine_of_an_older_model_is_recognised(bundle):
    mine = bundle.manifest.files[MODEL].sha256
    write_entry(bundle.path, entry("old.plan", OLD), OLD)
    index = write_entry(bundle.path, entry("now.plan", NEW, model_sha256=mine), NEW)
    found = index.find(target(model_sha256=mine))
    assert [each.file for each in found.usable] == ["now.plan"]
    assert found.refused == ("engines/old.plan is not used: it was built from another model.onnx",)


def test_a_copied_bundle_keeps_its_engines(bundle, tmp_path):
    write_entry(bundle.path, A, OLD)
    shutil.copytree(bundle.path, tmp_path / "copy.vis")
    assert readable(tmp_path / "copy.vis") == ["a.plan"]
    write_entry(tmp_path / "copy.vis", B, b"another")
    assert readable(bundle.path) == ["a.plan"]


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(bundle):
    write_entry(bundle.path, A, OLD)
    engines = bundle.path / "engines"
    kept = (".DS_Store", "._a.plan", ".notes.json")
    for name in (".index-abc_1234.json", ".x.plan.0123.plan", "..x.plan.01-abc_1234.plan", *kept):
        (engines / name).write_bytes(b"x")
    write_entry(bundle.path, B, b"another")
    assert content(bundle.path) == sorted([".lock", "a.plan", "b.plan", "index.json", *kept])


# Runs alone in a process without threads: it forks.
_KILL = """
import sys
from pathlib import Path
from tests.visdeploy.backends.engines import kill_everywhere
from tests.visdeploy.backends.test_engine_files import WORK, prepare
kill_everywhere(Path(sys.argv[1]), WORK[sys.argv[2]][0], lambda folder: prepare(Path(sys.argv[3]), folder))
"""
# the work of a writer on the engines a and b; a file, and its content before the work and after it
WORK = {
    "adding": (lambda folder: write_entry(folder, entry("c.plan", NEW), NEW), ("c.plan", [None, NEW])),
    "replacing": (lambda folder: write_entry(folder, NEW_A, NEW), ("a.plan", [OLD, NEW])),
    "the same again": (lambda folder: write_entry(folder, A, OLD), ("a.plan", [OLD])),
    "removing": (lambda folder: remove_entry(folder, "a.plan"), ("a.plan", [OLD, None])),
}


def prepare(bundle, folder):
    shutil.copytree(bundle, folder)
    write_entry(folder, A, OLD)
    write_entry(folder, B, b"another")


def run(code, *words):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stderr=subprocess.PIPE, text=True)


def finish(process):
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said


@pytest.mark.parametrize("work", WORK)
def test_a_writer_killed_at_any_step_leaves_a_bundle_that_works(bundle, tmp_path, work):
    finish(run(_KILL, tmp_path / "killed", work, bundle.path))
    file, states = WORK[work][1]
    seen = []
    folders = sorted((tmp_path / "killed").iterdir())
    for folder in folders:
        assert Bundle.open(folder).identity == bundle.identity
        index = read_index(folder)
        plans = {each.file: checked_plan(folder, each) for each in index.entries}
        assert plans.pop("b.plan") == b"another"
        seen.append(plans.get(file))
        before = {each.file for each in index.entries}
        after = {each.file for each in write_entry(folder, entry("d.plan", b"later"), b"later").entries}
        assert after == before | {"d.plan"}
        assert content(folder) == sorted([".lock", "index.json", *after])
        assert readable(folder)
    assert len(folders) > 8
    assert [seen[0], seen[-1]] == [states[0], states[-1]]
    assert seen == sorted(seen, key=states.index)  # one change, never back


_WRITE = """
import sys
from pathlib import Path
from tests.visdeploy.backends.engines import entry
from visdeploy.backends.engine_files import remove_entry, write_entry
folder, name = Path(sys.argv[1]), sys.argv[2]
for i in range(12):
    plan = f"{name}{i}".encode() * 1000
    write_entry(folder, entry(f"{name}{i}.plan", plan), plan)
    write_entry(folder, entry("shared.plan", plan), plan)
    if i % 3 == 2:
        remove_entry(folder, f"{name}{i}.plan")
"""


def test_two_writers_and_readers_at_once(bundle):
    writers = [run(_WRITE, bundle.path, name) for name in "xy"]
    looks = 0
    while any(writer.poll() is None for writer in writers):
        assert Bundle.open(bundle.path).identity == bundle.identity
        # shared.plan and those about to be removed may change between the two looks; what lasts is always readable
        lasting = [e for e in read_index(bundle.path).entries if e.file[0] in "xy" and int(e.file[1:-5]) % 3 != 2]
        assert all(checked_plan(bundle.path, each) for each in lasting)
        looks += 1
    for writer in writers:
        finish(writer)
    assert looks
    files = [f"{name}{i}.plan" for name in "xy" for i in range(12) if i % 3 != 2]
    assert sorted(readable(bundle.path)) == sorted([*files, "shared.plan"])
    assert content(bundle.path) == sorted([".lock", "index.json", "shared.plan", *files])


def test_threads_wait_for_each_other(bundle):
    def work(name):
        for i in range(5):
            write_entry(bundle.path, entry(f"{name}{i}.plan", OLD), OLD)

    threads = [threading.Thread(target=work, args=(name,)) for name in "xyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(readable(bundle.path)) == 15


def test_a_reader_between_the_two_looks_of_a_check(bundle, monkeypatch):
    """A plan that was added after the index was read is looked up once more, one that stays unnamed is an error."""
    import visdeploy.backends.engine_files as module

    write_entry(bundle.path, A, OLD)
    listing = module._plans
    added = []

    def add_first(folder):
        if not added:
            added.append(write_entry(folder, B, b"another"))
        return listing(folder)

    monkeypatch.setattr(module, "_plans", add_first)
    assert [each.file for each in check_engines(bundle.path, bundle.manifest.tolerance).entries] == ["a.plan", "b.plan"]


def test_the_lock_of_a_replaced_bundle_is_not_that_of_its_successor(bundle, monkeypatch):
    """A writer that waited while the bundle was exported anew takes the new folder's lock."""
    import fcntl

    write_entry(bundle.path, A, OLD)
    locked = []
    lock = fcntl.flock

    def replace_meanwhile(handle, kind):
        lock(handle, kind)
        locked.append(os.fstat(handle).st_ino)
        if len(locked) == 1:
            write_bundle(bundle.path, fields(), {MODEL: b"n", SELFTEST: b"s", CERTIFICATE: b"{}"}, overwrite=True)
            (bundle.path / "engines").mkdir()
            (bundle.path / "engines" / ".lock").touch()

    monkeypatch.setattr(fcntl, "flock", replace_meanwhile)
    write_entry(bundle.path, B, b"another")
    assert len(set(locked)) == 2
    assert readable(bundle.path) == ["b.plan"]


def test_unknown_fields_of_the_index_stop_a_bundle(bundle):
    write_entry(bundle.path, A, OLD)
    edit_json(bundle.path / "engines" / "index.json", lambda data: data["entries"][0].update(surprise=1))
    with pytest.raises(BundleError, match=r"index\.json: field 'entries\.0\.surprise'"):
        Bundle.open(bundle.path)


TF32 = EngineTolerance(engine="tensorrt", precision="tf32", tolerance=Tolerance(atol=0.1, mask_iou=0.98))


@pytest.mark.parametrize(
    ("precision", "tolerance", "message"),
    [
        ("fp32", Tolerance(), ""),
        ("fp32", Tolerance(atol=1e-4, rtol=0, mask_iou=1), ""),
        ("fp32", Tolerance(atol=0.1), r"atol' is looser .* for tensorrt at fp32 \(seen: 0.1; expected: at most 0.001"),
        ("fp32", Tolerance(rtol=0.5), "rtol' .*seen: 0.5; expected: at most 0.0001"),
        ("fp32", Tolerance(mask_iou=0.9), "mask_iou' .*seen: 0.9; expected: at least 0.999"),
        ("fp32", Tolerance(agreement=0), "agreement' .*seen: 0; expected: at least 1"),
        ("tf32", Tolerance(atol=0.1, mask_iou=0.98), ""),
        (
            "tf32",
            Tolerance(atol=0.2, mask_iou=0.98),
            r"atol' .* for tensorrt at tf32 \(seen: 0.2; expected: at most 0.1",
        ),
        ("fp16", Tolerance(atol=0.1), r"atol' .* for tensorrt at fp16 \(seen: 0.1; expected: at most 0.001"),
    ],
)
def test_an_engine_certified_with_looser_limits_stops_a_bundle(tmp_path, precision, tolerance, message):
    files = {MODEL: b"model", SELFTEST: b"selftest", CERTIFICATE: b"{}"}
    allowed = Tolerances(engines=[TF32])
    bundle = write_bundle(tmp_path / "a.vis", fields() | {"tolerance": allowed}, files)
    write_entry(bundle.path, B, b"another")
    certified = certificate(tolerance=tolerance)
    write_entry(bundle.path, entry("a.plan", OLD, precision=precision, certificate=certified), OLD)
    if not message:
        assert readable(bundle.path) == ["b.plan", "a.plan"]
        return
    with pytest.raises(
        BundleError, match=rf"index\.json: field 'entries\.1\.certificate\.tolerance\.{message}"
    ) as caught:
        Bundle.open(bundle.path)
    assert "Build the engines again" in caught.value.hint
