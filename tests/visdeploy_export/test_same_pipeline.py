"""Validation during training and the exported bundle give the same tracks and the same AP, empty tracks included."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from PIL import Image

import visdeploy
from tests.shallow import shallow_backbones
from tests.visdeploy_export.pipelines import in_onnx_runtime, in_pytorch
from tests.visdeploy_training.methods.defvis.conftest import small_network as small_defvis
from tests.visdeploy_training.methods.tevit.conftest import small_network as small_tevit
from tests.visdeploy_training.methods.visolo.conftest import SMALL
from visdeploy.bundle import Bundle
from visdeploy.evaluation import evaluate, read_annotations
from visdeploy.manifest import GraphSpec
from visdeploy.results import Track, VideoResult
from visdeploy.streaming.stream import whole_video
from visdeploy_export.proof.clips import moving_clip
from visdeploy_export.proof.mini_set import measure_average_precision
from visdeploy_training import VISModel, create_model, get_method, save_checkpoint
from visdeploy_training.datasets import ValidationClip, read_records, to_annotations, validation_clips
from visdeploy_training.engine.data import RecipeData
from visdeploy_training.engine.module import TrainingModule
from visdeploy_training.engine.optim import OptimRecipe
from visdeploy_training.predict import predict_clip, torch_pipeline

CLIPS = {"clip": (7, 45, 80), "dot": (2, 1, 1)}
"""Frames, rows and columns: several windows of the clip methods; most masks vanish from a frame of a single pixel."""


def visolo() -> VISModel:
    """Return a network without suppression, whose small kernels keep the masks and give logits of a usual size."""
    torch.manual_seed(0)
    model = create_model(
        "visolo", "tiny", num_classes=1, height=64, width=96, overlap_threshold=1.0, **(SMALL | {"memory_slots": 5})
    )
    get_method("visolo").show_objects(model, 15)
    model.get_parameter("Kernel_branch.pred.norm.weight").data.mul_(0.1)
    return model.eval()


def defvis() -> VISModel:
    """Frames below a threshold show nothing: it is put where a slot that is hidden throughout outranks one that is not.

    Sharp attention makes the scores of the windows differ.
    """

    def build(threshold: float) -> VISModel:
        options = {"clip_overlap": 1, "encoder_layers": 1, "decoder_layers": 1, "frame_score_threshold": threshold}
        model = small_defvis(tokens=False, **options)
        get_method("defvis").show_objects(model, 15)
        model.insmask_head[-1].weight.data.mul_(4)
        for name, parameter in model.named_parameters():
            if name == "class_embed.weight" or ("multihead_attn" in name and parameter.ndim == 2):
                parameter.data.mul_(4)
        return model.eval()

    pipeline = torch_pipeline(build(0.0))
    steps = pipeline.steps(moving_clip(*CLIPS["clip"]))
    scores = np.sort(np.concatenate([pipeline.run(s, None)[0]["class_scores"].max(-1).ravel() for s in steps]))
    gaps = [(low + high) / 2 for low, high in pairwise(scores.tolist()) if high - low > 1e-3]
    return next(model for model in map(build, gaps) if hidden_outranks(predictions(model)))


def tevit() -> VISModel:
    """Return a network with five pairs in every clip, with or without mask pixels."""
    options = {"window": 4, "clip_overlap": 2, "height": 64, "width": 96, "max_results": 5}
    model = small_tevit(backbone="efficientnet_lite0", **options)
    get_method("tevit").show_objects(model, 15)
    return model.eval()


Predictions = dict[str, VideoResult]


def predictions(model: VISModel) -> Predictions:
    """Return the predictions of validation for each clip."""
    return {name: predict_clip(model, moving_clip(*size), name=name) for name, size in CLIPS.items()}


def target_of(predicted: Predictions) -> Track:
    """Return the weakest track of the clip that has masks."""
    return min((track for track in predicted["clip"].tracks if track.masks), key=lambda track: track.score)


def hidden_outranks(predicted: Predictions) -> bool:
    """Return whether the score of a track without masks is clearly above that of the target."""
    target = target_of(predicted)
    tracks = (track for video in predicted.values() for track in video.tracks if track.label == target.label)
    return any(not track.masks and track.score > target.score + 1e-3 for track in tracks)


@dataclass(frozen=True)
class Made:
    """A network, its bundle, and what validation predicts."""

    model: VISModel
    bundle: Bundle
    predicted: Predictions


@pytest.fixture(scope="module", autouse=True)
def shallow() -> Iterator[None]:
    """What the files agree on does not depend on the number of blocks."""
    with shallow_backbones():
        yield


@pytest.fixture(scope="module", params=[visolo, defvis, tevit], ids=lambda build: build.__name__)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    build: Callable[[], VISModel] = request.param
    model = build()
    checkpoint = save_checkpoint(model, tmp_path_factory.mktemp(model.info.method) / "model.safetensors")
    return Made(model, visdeploy.export(checkpoint, certify_frames=2), predictions(model))


def test_the_bundle_and_the_network_have_one_specification(made: Made):
    own, manifest = torch_pipeline(made.model).spec, made.bundle.manifest
    for field in (*GraphSpec.model_fields, "method", "variant", "classes"):
        assert getattr(own, field) == getattr(manifest, field), field


def test_the_bundles_pipeline_in_pytorch_gives_exactly_the_tracks_of_validation(made: Made):
    pipeline = in_pytorch(made.bundle)
    for name, size in CLIPS.items():
        assert whole_video(pipeline, moving_clip(*size), name=name).tracks == made.predicted[name].tracks


def test_the_bundles_stream_gives_the_tracks_of_validation(made: Made):
    predictor = visdeploy.VISPredictor(made.bundle, device="cpu", threads=1)
    for name, expected in made.predicted.items():
        with predictor.open_stream(collect=True, name=name) as stream:
            for frame in moving_clip(*CLIPS[name]):
                stream.push(frame)
            stream.flush()
            found = stream.result()
        assert (found.num_frames, found.classes) == (expected.num_frames, expected.classes)
        assert [t.track_id for t in found.tracks] == [t.track_id for t in expected.tracks]
        for ours, theirs in zip(found.tracks, expected.tracks, strict=True):
            compare(ours, theirs)
    tracks = [track for video in made.predicted.values() for track in video.tracks]
    assert {bool(track.masks) for track in tracks} == {True, False}, "some are without masks, some are not"


def compare(ours: Track, theirs: Track) -> None:
    """Check that label and frames are the same, and scores and masks up to rounding."""
    assert (ours.label, ours.masks.keys()) == (theirs.label, theirs.masks.keys())
    assert ours.score == pytest.approx(theirs.score, abs=1e-3)
    for frame, mask in ours.masks.items():
        first, second = mask.decode(), theirs.masks[frame].decode()
        assert np.count_nonzero(first != second) <= max(2, 1e-3 * np.count_nonzero(first | second))


@pytest.fixture
def mini_set(made: Made, tmp_path: Path) -> Path:
    """Both clips as images; the only object is the weakest track of the clip, so every empty track above it counts."""
    videos, target = [], target_of(made.predicted)
    for number, (name, size) in enumerate(CLIPS.items(), start=1):
        (tmp_path / name).mkdir()
        clip = moving_clip(*size)
        files = [f"{name}/{t}.png" for t in range(len(clip))]
        for file, frame in zip(files, clip, strict=True):
            Image.fromarray(frame).save(tmp_path / file)
        height, width = clip.shape[1:3]
        videos.append({"id": number, "height": height, "width": width, "length": len(clip), "file_names": files})
    masks = [target.masks[t].to_coco() if t in target.masks else None for t in range(CLIPS["clip"][0])]
    annotation = {"id": 1, "video_id": 1, "category_id": target.label + 1, "iscrowd": 0, "segmentations": masks}
    categories = [{"id": i, "name": name} for i, name in enumerate(made.model.info.classes, start=1)]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps({"videos": videos, "annotations": [annotation], "categories": categories}))
    return path


class ValidationOnly(RecipeData):
    """The data of a training, validation clips alone."""

    def __init__(self, clips: list[ValidationClip]) -> None:
        LightningDataModule.__init__(self)
        self.clips = clips


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_validation_ap_is_the_bundles_ap(made: Made, mini_set: Path, precision: Literal["32-true", "bf16-mixed"]):
    """This holds also for training in lower precision, which the reference of a bundle never uses."""
    classes = made.model.info.classes
    records = read_records(mini_set, mini_set.parent, layout="ytvis", classes=classes)
    data, truth = ValidationOnly(validation_clips(records, pseudo_frames=2)), to_annotations(records, classes)
    module = TrainingModule(made.model, OptimRecipe(lr=1e-3), iterations=1, truth=truth)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    (scores,) = Trainer(accelerator="cpu", precision=precision, **quiet).validate(module, data, verbose=False)
    proof = measure_average_precision(in_pytorch(made.bundle), in_onnx_runtime(made.bundle), mini_set, mini_set.parent)
    assert proof.videos == 2
    assert 0 < proof.reference < 1
    assert scores["val/AP"] == pytest.approx(proof.reference, rel=1e-6)
    assert scores["val/AP"] == pytest.approx(proof.candidate, rel=1e-6)


def test_empty_tracks_count_in_ap(made: Made, mini_set: Path):
    truth, results = read_annotations(mini_set), list(made.predicted.values())
    assert hidden_outranks(made.predicted)
    shown = [replace(video, tracks=[t for t in video.tracks if t.masks]) for video in results]
    every, fewer = (float(evaluate(videos, truth)["AP"]) for videos in (results, shown))
    assert every < fewer
