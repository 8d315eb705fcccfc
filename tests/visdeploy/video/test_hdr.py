"""HDR video becomes SDR."""

from pathlib import Path

import numpy as np
import pytest

from tests.campaigns.media_files import video
from tests.campaigns.media_hdr import PATCHES, hdr, hlg, pq, sdr
from visdeploy.video import open_source
from visdeploy.video.hdr import compress, pq_decode, pq_encode, tone_map


@pytest.mark.parametrize(("transfer", "encode"), [("PQ", pq), ("HLG", hlg)])
def test_patches(transfer: str, encode) -> None:
    coded = np.round(encode(PATCHES) * 65535).astype(np.uint16)[None]
    np.testing.assert_allclose(tone_map(coded, transfer)[0], sdr(PATCHES), atol=2)


def test_curve() -> None:
    light = np.array([1.0, 50, 87, 203, 1000])
    assert compress(light)[:3] == pytest.approx(light[:3], rel=1e-3)
    assert compress(light)[4] == pytest.approx(203)
    assert np.all(np.diff(compress(np.linspace(1, 1000, 500))) > 0)
    assert pq_decode(pq_encode(light)) == pytest.approx(light)
    assert pq_encode(np.array(100.0)) == pytest.approx(0.508, abs=1e-3)  # the value of SMPTE ST 2084


@pytest.mark.parametrize(("transfer", "encode", "name"), [(16, pq, "PQ"), (18, hlg, "HLG")])
def test_hdr_is_tone_mapped_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, transfer: int, encode, name: str
) -> None:
    case = hdr("a.mp4", transfer, encode)
    frames = list(open_source(case.make(tmp_path / "a.mp4")))
    assert len(frames) == 4
    for frame in frames:
        assert np.abs(frame.image.astype(float) - case.images[0]).mean() < 2
    assert caplog.text.count(f"HDR ({name}) is tone-mapped to SDR") == 1


def test_sdr_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    list(open_source(video(tmp_path / "a.mp4", frames=2)))
    assert "HDR" not in caplog.text
