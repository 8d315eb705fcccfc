"""The self-test of a bundle: what is written is read, and damage is named."""

import pickle

import numpy as np
import pytest

from visdeploy.errors import BundleError
from visdeploy.selftest import SelfTest


def selftest(frames=2, **outputs):
    clip = np.random.RandomState(0).randint(0, 256, (frames, 4, 6, 3), np.uint8)
    return SelfTest(clip, tuple({k: v + i for k, v in outputs.items()} for i in range(frames)))


def test_selftest_keeps_values_and_types(tmp_path):
    made = selftest(scores=np.linspace(0, 1, 5, dtype=np.float32), cells=np.zeros((0,), np.int64))
    (tmp_path / "s.npz").write_bytes(made.to_bytes())
    read = SelfTest.load(tmp_path / "s.npz", ["scores", "cells"])
    np.testing.assert_array_equal(read.frames, made.frames)
    for mine, theirs in zip(made.outputs, read.outputs, strict=True):
        for name, value in mine.items():
            np.testing.assert_array_equal(theirs[name], value)
            assert theirs[name].dtype == value.dtype


def _object_array(path):
    np.savez(path, frames=np.array([{"code": 1}], dtype=object))


def _pickled(path):
    path.write_bytes(pickle.dumps({"frames": 1}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p.write_bytes(b"garbage"), "cannot be read"),
        (lambda p: p.write_bytes(selftest(scores=np.ones(3)).to_bytes()[:-40]), "cannot be read"),
        (_object_array, "cannot be read"),
        (_pickled, "cannot be read"),
        (lambda p: p.write_bytes(selftest(labels=np.ones(3)).to_bytes()), "f0/scores"),
        (lambda p: np.savez(p, frames=np.zeros((0, 4, 4, 3), np.uint8)), "malformed"),
        (lambda p: np.savez_compressed(p, frames=np.zeros((1, 1000, 1000, 3), np.uint8)), "arrays of 30001.. B"),
    ],
)
def test_bad_selftests(tmp_path, monkeypatch, make, message):
    monkeypatch.setattr("visdeploy.archives._ALWAYS", 2**20)
    make(tmp_path / "s.npz")
    with pytest.raises(BundleError, match=message):
        SelfTest.load(tmp_path / "s.npz", ["scores"])
