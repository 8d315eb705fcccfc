from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.visdeploy_training.material import CLASSES, coco_set, stemseg_images, ytvis_set
from visdeploy.errors import ConfigError, DataError
from visdeploy_training.datasets import (
    ClipDataset,
    ClipPart,
    MixedBatches,
    Sample,
    SampleKey,
    collate,
    consecutive_frames,
    cyclic_frames,
    distinct_frames,
    near_frames,
    paste_objects,
    read_records,
    sample_frames,
    validation_clips,
)
from visdeploy_training.datasets.transforms import Chain, MovingWindow


@pytest.fixture
def parts(tmp_path):
    window = MovingWindow(height=48, width=80, zoom=(0.8, 1.0))
    videos = read_records(*ytvis_set(tmp_path / "v"), layout="ytvis", classes=CLASSES)
    images = read_records(*coco_set(tmp_path / "i"), layout="coco", classes=CLASSES)
    return [ClipPart(videos, window, paste=0.5), ClipPart(images, window, clip_length=3)]


@settings(max_examples=100, deadline=None)
@given(length=st.integers(1, 120), count=st.integers(1, 5), window=st.integers(1, 30), seed=st.integers(0, 999))
def test_frames_lie_in_one_window_of_the_video(length, count, window, seed):
    torch.manual_seed(seed)
    frames = sample_frames(length, count, window=window)
    assert len(frames) == count
    assert 0 <= min(frames) <= max(frames) < length
    assert max(frames) - min(frames) < 2 * window


def test_frames_are_drawn_in_any_order():
    torch.manual_seed(0)
    draws = [sample_frames(40, 3) for _ in range(20)]
    assert any(d != sorted(d) for d in draws)


@given(length=st.integers(1, 50), count=st.integers(1, 40), seed=st.integers(0, 999))
def test_frames_in_order(length, count, seed):
    torch.manual_seed(seed)
    for draw in (consecutive_frames, cyclic_frames):
        frames = draw(length, count)
        assert len(frames) == count
        assert frames == [(frames[0] + t) % length for t in range(count)]
    plain = consecutive_frames(length, count)
    assert plain[0] == 0 if length <= count else plain == sorted(plain)


def test_clips_in_order_start_anywhere():
    torch.manual_seed(0)
    assert {consecutive_frames(6, 3)[0] for _ in range(60)} == {0, 1, 2, 3}
    assert {cyclic_frames(6, 3)[-1] for _ in range(60)} == {0, 1, 2, 3, 4, 5}


@given(candidates=st.sets(st.integers(0, 60), min_size=1, max_size=20), data=st.data(), seed=st.integers(0, 999))
def test_distinct_frames_start_with_the_one_asked_for(candidates, data, seed):
    torch.manual_seed(seed)
    first, count = data.draw(st.sampled_from(sorted(candidates))), data.draw(st.integers(1, len(candidates)))
    frames = distinct_frames(sorted(candidates), count, first=first)
    assert frames[0] == first
    assert len(set(frames)) == len(frames) == count
    assert set(frames) <= candidates


def test_distinct_frames_are_uniform_and_in_no_order():
    torch.manual_seed(0)
    draws = [tuple(distinct_frames([1, 4, 5, 9], 3, first=4)[1:]) for _ in range(1200)]
    counts = Counter(draws)
    assert set(counts) == {(1, 5), (5, 1), (1, 9), (9, 1), (5, 9), (9, 5)}
    assert all(abs(n - 200) < 60 for n in counts.values())


@given(
    candidates=st.sets(st.integers(0, 60), min_size=1, max_size=20),
    count=st.integers(1, 4),
    window=st.integers(1, 9),
    seed=st.integers(0, 999),
    data=st.data(),
)
def test_near_frames_are_within_the_narrowest_window_that_has_any(candidates, count, window, seed, data):
    torch.manual_seed(seed)
    first = data.draw(st.sampled_from(sorted(candidates)))
    frames = near_frames(sorted(candidates), count, first=first, window=window)
    assert len(frames) == count
    assert frames[0] == first
    reach, others = window, candidates - {first}
    while others and not any(abs(t - first) <= reach for t in others):
        reach += window
    allowed = {t for t in others if abs(t - first) <= reach} or {first}
    assert set(frames[1:]) <= allowed


def test_near_frames_are_uniform_and_may_be_before_the_first():
    torch.manual_seed(0)
    draws = Counter(near_frames([0, 2, 3, 5, 6, 7, 9], 2, first=5, window=2)[1] for _ in range(900))
    assert set(draws) == {3, 6, 7}
    assert all(abs(n - 300) < 70 for n in draws.values())
    assert {near_frames([1, 5, 9, 10], 2, first=5, window=3)[1] for _ in range(60)} == {1, 9, 10}  # within 6, not 3
    assert near_frames([4], 2, first=4, window=2) == [4, 4]


def hidden_at(record, frames):
    """Return the record without its objects in some frames."""
    instances = tuple(
        type(i)(i.label, tuple(None if t in frames else m for t, m in enumerate(i.masks))) for i in record.instances
    )
    return type(record)(record.name, record.height, record.width, record.files, instances)


def test_epochs_of_distinct_frames_go_over_frames_that_show_objects(parts):
    records = [hidden_at(parts[0].records[0], {1}), hidden_at(parts[0].records[1], {0, 3})]
    part = ClipPart(records, parts[0].transform, clip_length=4, sampling="distinct")
    assert part.items == [(0, t) for t in (0, 2, 3, 4)]  # the other video has three such frames only
    drawn = [key for batch in take(MixedBatches([part], [1], 1), 40) for key in batch]
    for i in range(0, 40, 4):
        assert sorted(key.frame for key in drawn[i : i + 4]) == [0, 2, 3, 4]
    with pytest.raises(DataError, match=r"at most 4.*clip_length, 5"):
        ClipPart(records, parts[0].transform, clip_length=5, sampling="distinct")
    with pytest.raises(DataError, match="at most 0"):
        ClipPart([], parts[0].transform, sampling="distinct")


def test_epochs_of_near_frames_go_over_frames_that_show_objects(parts):
    """A video with one such frame takes part, with that frame as its own reference."""
    whole = MovingWindow(height=48, width=80, zoom=(1.0, 1.0), motion=0.0, rotation=0.0, aspect=0.0, on_object=0.0)
    records = [hidden_at(parts[0].records[0], {1, 2}), hidden_at(parts[0].records[1], {0, 1, 2, 3})]
    part = ClipPart(records, whole, clip_length=2, window=2, sampling="near")
    assert part.items == [(0, 0), (0, 3), (0, 4), (1, 4)]
    pairs = {item: set() for item in part.items}
    for item in part.items:
        for seed in range(20):
            sample = ClipDataset([part])[SampleKey(0, item[0], seed, frame=item[1])]
            left = [int(mask.any(dim=0).nonzero()[0]) for mask in sample.masks[:, 0]]
            pairs[item].add(tuple((x - 4) // 4 for x in left))
    assert pairs == {(0, 0): {(0, 3), (0, 4)}, (0, 3): {(3, 4)}, (0, 4): {(4, 3)}, (1, 4): {(4, 4)}}
    with pytest.raises(DataError, match=r"at most 0.*at least 1"):
        ClipPart([], whole, clip_length=2, sampling="near")


def test_clips_of_one_frame_go_over_images_with_objects(parts):
    window, record = parts[1].transform, parts[1].records[0]
    empty = type(record)(record.name, record.height, record.width, record.files, ())
    part = ClipPart([empty, *parts[1].records], window, clip_length=1, sampling="distinct")
    assert part.items == [(1, 0), (2, 0), (3, 0)]
    sample = ClipDataset([part])[SampleKey(0, 1, 5, frame=0)]
    assert (len(sample.images), len(sample.masks)) == (1, 1)


def test_a_distinct_clip_starts_with_its_frame(parts):
    whole = MovingWindow(height=48, width=80, zoom=(1.0, 1.0), motion=0.0, rotation=0.0, aspect=0.0, on_object=0.0)
    part = ClipPart(parts[0].records, whole, clip_length=4, sampling="distinct", paste=1.0)
    for seed in range(8):
        sample = ClipDataset([part])[SampleKey(0, 0, seed, frame=3)]
        left = [int(mask.any(dim=0).nonzero()[0]) for mask in sample.masks[:, 0] if mask.any()]
        assert len(set(left)) == len(left)
    plain = ClipPart(parts[0].records, whole, clip_length=4, sampling="distinct")
    left = [int(m.any(dim=0).nonzero()[0]) for m in ClipDataset([plain])[SampleKey(0, 0, 5, frame=3)].masks[:, 0]]
    assert left[0] == 4 + 4 * 3
    assert len(set(left)) == 4


@pytest.mark.parametrize("sampling", ["consecutive", "cyclic"])
def test_a_part_draws_its_frames_in_order(parts, sampling):
    """The red square of the material moves to the right by the same step, but for the jump to the start."""
    whole = MovingWindow(height=48, width=80, zoom=(1.0, 1.0), motion=0.0, rotation=0.0, aspect=0.0, on_object=0.0)
    part = ClipPart(parts[0].records, whole, clip_length=5, sampling=sampling)
    torch.manual_seed(1)
    sample = part.draw(0)
    left = [int(mask.any(dim=0).nonzero()[0]) for mask in sample.masks[:, 0]]
    start = [4 + 4 * t for t in range(5)].index(left[0])
    assert left == [4 + 4 * ((start + t) % 5) for t in range(5)]
    assert (start > 0) == (sampling == "cyclic")


def test_the_same_key_gives_the_same_clip_and_leaves_the_generator(parts):
    data = ClipDataset(parts)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, again = data[SampleKey(0, 1, 42)], data[SampleKey(0, 1, 42)]
    assert all(torch.equal(a, b) for a, b in zip(first[:3], again[:3], strict=True))
    assert first.ignore is again.ignore is None
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first.images, data[SampleKey(0, 1, 43)].images)


def test_a_row_is_one_object_in_all_frames(parts):
    sample = ClipDataset(parts)[SampleKey(1, 0, 7)]
    for label, masks in zip(sample.labels.tolist(), sample.masks.unbind(1), strict=True):
        colour = (0, 2)[label]
        for image, mask in zip(sample.images, masks, strict=True):
            if mask.sum() > 60:
                assert image[colour][mask].float().mean() > 150
                assert image[2 - colour][mask].float().mean() < 100


def test_an_image_without_objects_has_no_rows(parts):
    record = parts[1].records[0]
    empty = type(record)(record.name, record.height, record.width, record.files, ())
    batch = collate([ClipDataset([ClipPart([empty], parts[1].transform)])[SampleKey(0, 0, 1)]] * 2)
    assert batch.images.shape == (2, 3, 3, 48, 80)
    assert [t.masks.shape for t in batch.targets] == [(3, 0, 48, 80)] * 2
    assert [t.labels.shape for t in batch.targets] == [(3, 0)] * 2


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3),
    multiple=st.sampled_from([1, 8, 32]),
)
def test_a_batch_is_padded_at_the_right_and_bottom(sizes, multiple):
    samples = [
        Sample(
            torch.full((2, 3, h, w), 7, dtype=torch.uint8), torch.ones(2, 1, h, w, dtype=torch.bool), torch.tensor([3])
        )
        for h, w in sizes
    ]
    batch = collate(samples, multiple=multiple)
    rows, columns = batch.images.shape[3:]
    assert batch.sizes == tuple(sizes)
    assert rows % multiple == columns % multiple == 0
    assert 0 <= rows - max(h for h, _ in sizes) < multiple
    assert 0 <= columns - max(w for _, w in sizes) < multiple
    for image, target, (h, w) in zip(batch.images, batch.targets, sizes, strict=True):
        assert (image[..., :h, :w] == 7).all()
        assert int(image.sum()) == 7 * 2 * 3 * h * w
        assert target.masks[..., :h, :w].all()
        assert int(target.masks.sum()) == 2 * h * w
        assert target.labels.tolist() == [[3], [3]]


def test_pasted_objects_cover_and_hidden_ones_disappear():
    below = torch.zeros(2, 2, 8, 8, dtype=torch.bool)
    below[:, 0, :4, :4] = True
    below[:, 1, 6:, 6:] = True
    above = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    above[:, 0, :4, :4] = True
    onto = Sample(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), below, torch.tensor([0, 1]))
    other = Sample(torch.full((2, 3, 8, 8), 9, dtype=torch.uint8), above, torch.tensor([3]))
    result = paste_objects(onto, other)
    assert result.labels.tolist() == [0, 1, 3]
    assert result.masks.flatten(2).sum(2).tolist() == [[0, 4, 16]] * 2
    assert int((result.images == 9).sum()) == 2 * 3 * 16
    assert paste_objects(onto, Sample(onto.images, below[:, :0], torch.zeros(0, dtype=torch.int64))) is onto


def take(batches, count):
    stream = iter(batches)
    return [next(stream) for _ in range(count)]


def test_every_batch_is_of_one_set_and_ratios_hold(parts):
    drawn = take(MixedBatches(parts, [0.75, 0.25], 2, seed=3), 400)
    assert all(len({key.part for key in batch}) == 1 for batch in drawn)
    share = Counter(batch[0].part for batch in drawn)[0] / 400
    assert abs(share - 0.75) < 0.07


def test_every_record_comes_once_a_round(parts):
    drawn = [key.record for batch in take(MixedBatches(parts, [0, 1], 1, seed=1), 30) for key in batch]
    assert all(sorted(drawn[i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3))


def test_a_resumed_stream_goes_on_and_processes_share(parts):
    whole = take(MixedBatches(parts, [1, 1], 2, seed=9), 20)
    assert take(MixedBatches(parts, [1, 1], 2, seed=9, start=12), 8) == whole[12:]
    ranks = [take(MixedBatches(parts, [0, 1], 1, seed=2, rank=r, world=3), 4) for r in range(3)]
    for step in range(4):
        assert sorted(ranks[r][step][0].record for r in range(3)) == [0, 1, 2]


def test_a_batch_has_one_orientation(parts):
    records = list(parts[1].records)
    tall = [type(r)(r.name, r.width, r.height, r.files, r.instances) for r in records]
    mixed = ClipPart(records + tall, parts[1].transform)
    for batch in take(MixedBatches([mixed], [1], 2, seed=0), 20):
        assert len({key.record < 3 for key in batch}) == 1


@pytest.mark.parametrize("ratios", [[1.0], [0.0, 0.0], [-1.0, 2.0]])
def test_ratios_must_fit(parts, ratios):
    with pytest.raises(ConfigError, match="ratio"):
        MixedBatches(parts, ratios, 2)


def test_validation_of_images_is_the_same_each_time(parts):
    first = validation_clips(parts[1].records, pseudo_frames=4)
    again = validation_clips(parts[1].records, pseudo_frames=4)
    assert [c.record for c in first] == [c.record for c in again]
    for a, b in zip(first, again, strict=True):
        frames = list(a.frames())
        assert len(frames) == len(a.record) == 4
        assert all((x == y).all() for x, y in zip(frames, b.frames(), strict=True))
        assert not (frames[0] == frames[-1]).all()


def test_validation_of_videos_reads_their_files(parts):
    clip = validation_clips(parts[0].records, pseudo_frames=4)[0]
    frames = list(clip.frames())
    assert len(frames) == 5
    mask = clip.record.instances[0].masks[0].decode()
    assert (frames[0][mask] == (250, 20, 20)).all()


def ignored(sample, columns):
    """Return a sample whose first columns are ignored."""
    ignore = torch.zeros(sample.masks.shape[0], *sample.masks.shape[2:], dtype=torch.bool)
    ignore[..., :columns] = True
    return sample._replace(ignore=ignore)


def test_ignored_pixels_are_padded_as_known_ones(parts):
    sample = parts[0].draw(0)
    batch = collate([ignored(sample, 5), sample], multiple=64)
    ignore = batch.targets[0].ignore
    assert ignore.shape == (3, 64, 128)
    assert ignore.sum(dim=(1, 2)).tolist() == [5 * 48] * 3
    assert not ignore[:, 48:].any()
    assert batch.targets[1].ignore is None


def test_pasted_objects_are_known(parts):
    torch.manual_seed(0)
    onto, other = ignored(parts[0].draw(0), 80), parts[1].draw(0)
    result = paste_objects(onto, other)
    pasted = result.masks[:, len(onto.labels) :].any(dim=1)
    assert pasted.any()
    assert torch.equal(result.ignore, ~pasted)


def test_ignored_pixels_move_with_the_image(tmp_path):
    """A clip of a record that ignores its red object, in a moving window."""
    source = ytvis_set(tmp_path)
    records = read_records(
        *source, layout="ytvis", classes=CLASSES, class_map={"person": "ignore", "vehicle": "vehicle"}
    )
    window = MovingWindow(height=48, width=80, zoom=(0.8, 1.0), rotation=0)
    sample = ClipDataset([ClipPart(records, window)])[SampleKey(0, 0, 3)]
    assert sample.labels.tolist() == [1]
    red = (sample.images[:, 0] > 200) & (sample.images[:, 2] < 60)
    assert red.any()
    assert ((red & sample.ignore).sum() / (red | sample.ignore).sum()) > 0.8
    assert not (sample.ignore & sample.masks.any(dim=1)).any()


def test_background_and_duplicates_of_a_data_set(tmp_path):
    records = read_records(*ytvis_set(tmp_path), layout="ytvis", classes=CLASSES, class_map={"vehicle": "vehicle"})
    plain, changed = (
        ClipPart(records, Chain(), sampling="consecutive", duplicate=value, ignore_background=value)
        for value in (False, True)
    )
    before, after = (ClipDataset([part])[SampleKey(0, 0, 3)] for part in (plain, changed))
    assert (before.labels.tolist(), before.ignore) == ([1], None)
    assert after.labels.tolist() == [1, 1]
    assert torch.equal(after.ignore, ~after.masks.any(dim=1))
    assert after.masks.sum() > before.masks.sum()


def test_pseudo_videos_of_images_with_ignored_pixels(tmp_path):
    """The masks of the objects stay theirs."""
    records = read_records(*stemseg_images(tmp_path), layout="stemseg", classes=CLASSES)
    (clip, *_) = validation_clips(records, pseudo_frames=2)
    red, _ = clip.record.instances
    pixels = clip.images[0][red.masks[0].decode()]
    assert (pixels[:, 0] > 200).mean() > 0.8
