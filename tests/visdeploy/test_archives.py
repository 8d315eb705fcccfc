import io
import zipfile

import numpy as np
import pytest

from visdeploy.archives import check_archive


def write(path, content, method=zipfile.ZIP_STORED, name="a.npy"):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(name, content)


def npy(shape, size, descr="|u1"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + bytes(size)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_archives_of_numpy_pass(tmp_path, save):
    save(tmp_path / "a.npz", a=np.zeros((0, 3)), b=np.arange(5), c=np.array(True), d=np.asfortranarray(np.ones((2, 3))))
    check_archive(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (npy((2,), 3), r"a.npy has 3 B for uint8 \(2,\)"),
        (npy((2**62, 4), 8), "a.npy has 8 B"),
        (npy((-2, -4), 8), "a.npy has 8 B"),
        (npy((1,), 8, "|O"), "a.npy contains objects"),
        (b"text", "magic string|EOF"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "version"),
    ],
)
def test_malformed_arrays(tmp_path, content, message):
    write(tmp_path / "a.npz", content)
    with pytest.raises(ValueError, match=message):
        check_archive(tmp_path / "a.npz")


def test_what_expands_too_far_is_not_read(tmp_path, monkeypatch):
    write(tmp_path / "a.npz", npy((3 * 10**6,), 3 * 10**6), zipfile.ZIP_DEFLATED)
    check_archive(tmp_path / "a.npz")
    monkeypatch.setattr("visdeploy.archives._ALWAYS", 2**20)
    with pytest.raises(ValueError, match=r"arrays of 30001.. B in a file of .* at most 1048576 B allowed"):
        check_archive(tmp_path / "a.npz")
    write(tmp_path / "a.npz", npy((3 * 10**6,), 3 * 10**6))  # as large on disk
    check_archive(tmp_path / "a.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for _ in range(2):
            archive.writestr("a.npy", npy((2,), 2))
    with pytest.raises(ValueError, match="two arrays have one name"):
        check_archive(tmp_path / "a.npz")
