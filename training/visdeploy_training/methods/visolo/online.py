"""Exported form of VISOLO (Han et al., CVPR 2022): a pure function of one frame and an explicit memory.

Each frame attends to the two previous frames and to earlier key frames, which are every fifth frame, as in the
published implementation. There, the memory grows without limit; here, it has a fixed number of slots.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from visdeploy_training.methods.visolo.inference import memory_specs
from visdeploy_training.methods.visolo.network import VISOLO
from visdeploy_training.methods.visolo.postprocess import detect
from visdeploy_training.model import VISModel

KEY_INTERVAL = 5
_LAST = (1 << 31) - 1  # some engines compute int64 with 32 bits


class Memory(NamedTuple):
    """State between two frames, with T slots and N grid cells.

    Attributes:
        ref: Reference projections, the keys of the attention, `[T, track_dim, N]` float.
        cat: Projected category values, `[T, head_width, N]` float.
        ker: Projected kernel values, `[T, head_width, N]` float.
        frame: Index of the frame in each slot, -1 for an empty slot, `[T]` int64.
        step: Index of the next frame, `[1]` int64.
    """

    ref: Tensor
    cat: Tensor
    ker: Tensor
    frame: Tensor
    step: Tensor


def grid_weight_slots(memory: Memory) -> Tensor:
    """Return the share of each slot in the grid weight, `[T]` float: 0.5 for each of two frames, 0 for the others.

    The two frames are the previous frame t - 1 and the latest key frame, the latest multiple of 5 that is at most t - 2
    (frame 0 for t = 1). At t = 0 all shares are 0.
    """
    key = (memory.step - 2).clamp(min=0)
    key = key - torch.remainder(key, KEY_INTERVAL)
    used = memory.frame >= 0
    return 0.5 * (used & (memory.frame == memory.step - 1)).float() + 0.5 * (used & (memory.frame == key)).float()


def slot_to_write(memory: Memory) -> Tensor:
    """Return the slot in which the current frame t is stored, `[T]` bool with exactly one True.

    It is the slot of frame t - 2, unless that is a key frame (a multiple of 5); otherwise an empty slot; if there is
    none, the slot of the oldest key frame other than frame 0.
    """
    slots = memory.frame.shape[0]
    index = torch.arange(slots, device=memory.frame.device)
    leaving = memory.step - 2
    replace = (memory.frame == leaving) & (memory.step >= 3) & (torch.remainder(leaving, KEY_INTERVAL) != 0)
    age = torch.where(memory.frame == 0, torch.full_like(memory.frame, _LAST), memory.frame + slots)
    order = torch.where(replace, torch.full_like(memory.frame, -1), torch.where(memory.frame < 0, index, age))
    return index == order.argmin()


class OnlineStep(nn.Module):
    """Module that computes detections and the next memory from one frame and the memory; the batch size is 1.

    The results equal those of the published implementation, whose memory is unbounded, as long as
    `floor((t - 3) / 5) + 3 <= memory_slots`.

    Args:
        model: A VISOLO network; its weights are shared, not copied.

    Attributes:
        input_names: Names of the graph inputs.
        output_names: Names of the graph outputs, with the next state at the end.
        state_specs: Descriptions of the state tensors, in the order of `Memory`.
    """

    def __init__(self, model: VISModel) -> None:
        super().__init__()
        if not isinstance(model, VISOLO):
            raise TypeError(f"OnlineStep takes a VISOLO network, not {type(model).__name__}")
        self.model = model
        self.state_specs = memory_specs(model.config)
        self.input_names = ["frame", *(s.input for s in self.state_specs)]
        self.output_names = [
            "scores", "labels", "cells", "class_scores", "masks", "overlaps", "query", "reference",
            "cell_scores", "grid_weight", "mask_logits", *(s.output for s in self.state_specs),
        ]  # fmt: skip

    def initial_state(self, device: torch.device | str | None = None) -> dict[str, Tensor]:
        """Create the state before the first frame, by input name."""
        return {
            s.input: torch.full([int(n) for n in s.shape], s.initial, dtype=getattr(torch, s.dtype), device=device)
            for s in self.state_specs
        }

    def forward(
        self, frame: Tensor, mem_ref: Tensor, mem_cat: Tensor, mem_ker: Tensor, mem_frame: Tensor, step: Tensor
    ) -> tuple[Tensor, ...]:
        """Process frame t = `step`.

        Args:
            frame: Normalised RGB `[1, 3, H, W]`; H and W are multiples of the variant's `size_multiple`.
            mem_ref: See `Memory.ref`.
            mem_cat: See `Memory.cat`.
            mem_ker: See `Memory.ker`.
            mem_frame: See `Memory.frame`.
            step: See `Memory.step`.

        Returns:
            Tensors in the order of `output_names`, with n detections, C classes and N grid cells:
            scores `[n]`, labels `[n]`, cells `[n]`, class_scores `[n, C]`, masks `[n, H, W]` uint8,
            overlaps `[n, n]`, query and reference `[n, track_dim]`, cell_scores `[N, C]`, grid_weight `[N]`,
            mask_logits `[n, H/4, W/4]`, then the next state.
        """
        model, memory = self.model, Memory(mem_ref, mem_cat, mem_ker, mem_frame, step)
        own = model.features(frame)
        shared = model.Tracking_branch.share(own.feature)
        query, reference = model.Tracking_branch.query(shared)[0], model.Tracking_branch.reference(shared)[0]
        values = [model.Memory_module.conv1(v)[0].flatten(1) for v in (own.category, own.kernel)]
        attention, grid_weight = self._attend(query, reference, memory)
        category = self._read(own.category, attention, mem_cat, values[0])
        kernel = self._read(own.kernel, attention, mem_ker, values[1])
        cell_scores = model.Category_branch_post(category)[0].flatten(1).transpose(0, 1).sigmoid()
        kernels = model.Kernel_branch.kernels(kernel)[0].flatten(1)
        found = detect(cell_scores, kernels, own.mask_features[0], grid_weight, model.config)
        return (
            *found[:4],
            found.masks.to(torch.uint8),
            found.overlaps,
            query[:, found.cells].transpose(0, 1),
            reference[:, found.cells].transpose(0, 1),
            cell_scores,
            grid_weight,
            found.mask_logits,
            *self._remember(memory, reference, *values),
        )

    @staticmethod
    def _attend(query: Tensor, reference: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Compute the attention `[1, N, (T + 1) * N]` over the slots and the current frame, and the grid weight `[N]`.

        The weights of the current frame are 0 except at t = 0, when the memory is empty.
        """
        cells = query.shape[1]
        keys = torch.cat([memory.ref, reference.unsqueeze(0)]).float()
        logits = torch.matmul(query.float().transpose(0, 1), keys)
        readable = torch.cat([memory.frame >= 0, memory.step == 0])
        # finite, not -inf, because of half precision and TensorRT; exp(-1e4) is 0
        bias = torch.where(readable, 0.0, -1e4)
        attention = (logits + bias[:, None, None]).transpose(0, 1).reshape(1, cells, -1).softmax(dim=-1)
        best = logits[:-1].amax(dim=2).sigmoid()
        weight = (grid_weight_slots(memory)[:, None] * best).sum(dim=0)
        return attention, torch.where(memory.step == 0, torch.ones_like(weight), weight)

    def _read(self, value: Tensor, attention: Tensor, slots: Tensor, own: Tensor) -> Tensor:
        gathered = torch.cat([slots, own.unsqueeze(0)]).transpose(0, 1).flatten(1)
        return self.model.Memory_module.read(value, attention.to(gathered.dtype), gathered.unsqueeze(0))

    @staticmethod
    def _remember(memory: Memory, reference: Tensor, category: Tensor, kernel: Tensor) -> Memory:
        slot = slot_to_write(memory)
        here = slot[:, None, None]
        return Memory(
            torch.where(here, reference, memory.ref),
            torch.where(here, category, memory.cat),
            torch.where(here, kernel, memory.ker),
            torch.where(slot, memory.step, memory.frame),
            memory.step + 1,
        )
