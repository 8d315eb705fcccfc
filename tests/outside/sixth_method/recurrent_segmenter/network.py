"""The network: a convolutional encoder, two recurrent maps, a memory of frame codes, and slots that find objects."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recurrent_segmenter.config import STRIDES, RecurrentSegmenterConfig
from visdeploy_training.model import VISModel


class State(NamedTuple):
    """State that is passed from a frame to the next one; B videos, C channels.

    Attributes:
        near: `[B, C, H/8, W/8]`.
        far: `[B, C, H/16, W/16]`.
        memory: Codes of earlier frames, oldest first, `[B, m, C]`; m grows from 0 to the configuration's bound.
        step: Number of the next frame, `[1]` int64.
    """

    near: Tensor
    far: Tensor
    memory: Tensor
    step: Tensor


class Output(NamedTuple):
    """Output of the network; `...` is B for one frame, B and T for clips; K slots.

    Attributes:
        class_logits: `[..., K, num_classes]`.
        mask_logits: `[..., K, H/8, W/8]`.
        code: `[..., C]`.
    """

    class_logits: Tensor
    mask_logits: Tensor
    code: Tensor


class Cell(nn.Module):
    """A convolutional recurrent cell with one gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.candidate = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """Return the next state, of the same shape."""
        both = torch.cat([features, state], dim=1)
        keep = self.gate(both).sigmoid()
        return keep * state + (1 - keep) * self.candidate(both).tanh()


class RecurrentSegmenter(VISModel):
    """Recurrent segmenter, see the docstring of this module."""

    def __init__(self, config: RecurrentSegmenterConfig) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 5, stride=4, padding=2),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            nn.GroupNorm(2, width),
        )
        self.deeper = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.near, self.far = Cell(width), Cell(width)
        self.code = nn.Linear(width, width)
        self.slots = nn.Parameter(torch.randn(config.slots, width))
        self.kernel = nn.Linear(width, width)
        self.classifier = nn.Linear(2 * width, config.num_classes)

    def initial_state(self, batch: int, height: int, width: int) -> State:
        """Return the state before the first frame."""
        weight, channels = self.slots, self.config.channels
        near, far = (weight.new_zeros(batch, channels, height // s, width // s) for s in STRIDES)
        return State(near, far, weight.new_zeros(batch, 0, channels), torch.zeros(1, dtype=torch.int64))

    def step(self, frames: Tensor, state: State) -> tuple[Output, State]:
        """Process one frame of every video.

        Args:
            frames: Normalised RGB `[B, 3, H, W]`; the sides are multiples of 16.
            state: What the frame before gave.
        """
        features = F.silu(self.encoder(frames))
        near = self.near(features, state.near)
        far = self.far(F.silu(self.deeper(near)), state.far)
        fused = near + F.interpolate(far, scale_factor=2.0, mode="bilinear", align_corners=False)
        code = self.code(fused.mean(dim=(2, 3)))
        slots = torch.tanh(self.slots + (code + self._recall(code, state.memory))[:, None])
        mask_logits = torch.einsum("bkc,bchw->bkhw", self.kernel(slots), fused)
        masks = mask_logits.sigmoid()
        seen = torch.einsum("bkhw,bchw->bkc", masks, fused) / masks.sum(dim=(2, 3))[..., None].clamp(min=1)
        class_logits = self.classifier(torch.cat([slots, seen], dim=-1))
        return Output(class_logits, mask_logits, code), State(near, far, self._remember(code, state), state.step + 1)

    @staticmethod
    def _recall(code: Tensor, memory: Tensor) -> Tensor:
        """Return the codes in the memory weighted by similarity, `[B, C]`; zeros while it is empty."""
        likeness = (memory @ code[:, :, None]).squeeze(2) / memory.shape[2] ** 0.5
        return (likeness.softmax(dim=1)[:, None] @ memory).squeeze(1)

    def _remember(self, code: Tensor, state: State) -> Tensor:
        """Return the memory, with the code of this frame if it is due, and without codes beyond the maximum."""
        due = torch.remainder(state.step, self.config.memory_every) == 0
        fresh = code[:, None][:, due]
        return torch.cat([state.memory, fresh], dim=1)[:, -self.config.memory_frames :]

    def forward(self, clips: Tensor) -> Output:
        """Return the training forward of whole clips, `[B, T, 3, H, W]`."""
        state, found = self.initial_state(clips.shape[0], *clips.shape[3:]), []
        for frames in clips.unbind(1):
            output, state = self.step(frames, state)
            found.append(output)
        return Output(*(torch.stack(each, dim=1) for each in zip(*found, strict=True)))
