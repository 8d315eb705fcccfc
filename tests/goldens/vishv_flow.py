"""VIShv's flow alone: steps, likelihood, inverse, sampling, log-determinants, initialisation; also with a condition."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visdeploy_training.methods.vishv.flow import Glow, bits_per_dim
from visdeploy_training.methods.vishv.flow.glow import FlowStep, squeeze

from .core import Golden, Store
from .seeded import seeded_array

LIMIT = {"rtol": 1e-3, "atol": 5e-4}
RECONSTRUCTION = 1e-4
"""Largest error of the inverse; float32 rounding passes through all steps twice."""


def check_flow(golden: Golden, file: str, manifest: Mapping[str, Any]) -> None:
    """Compare every layout of a file."""
    if (store := golden.open(file, cases=True)) is None:
        return
    for name, layout in manifest["layouts"].items():
        check_layout(store, name, build(store, name, layout, manifest))
    golden.close(store)


def build(store: Store, name: str, layout: Mapping[str, Any], manifest: Mapping[str, Any]) -> Glow:
    """The flow of a layout, with its seeded and stored weights."""
    if "c" in layout:
        flow = Glow(layout["c"], steps=layout["K"], levels=layout["L"], width=layout["h"], conditional=True)
    else:
        flow = Glow(
            layout["in_channel"],
            steps=layout["n_flow"],
            levels=layout["n_block"],
            affine=layout["affine"],
            lu=layout["conv_lu"],
        )
    prefix = f"{name}."
    params = [{**each, "name": prefix + each["name"]} for each in layout["params"]]
    state = store.golden.weights(details={"params": params, "overrides": manifest["overrides"]})
    state = {key.removeprefix(prefix): value for key, value in state.items()}
    for key in layout["kept"]:
        state[key] = torch.from_numpy(np.array(store.take(f"{name}/kept/{key}")))
        if key.endswith("invconv.weight"):
            check_rotation(store, f"{name}/kept/{key}", prefix + key)
    flow.load_state_dict(state, strict=True)
    return flow.eval()


def check_rotation(store: Store, key: str, seeded: str) -> None:
    """Compare a stored orthogonal matrix with the one that follows from the seeded values."""
    shape = store.arrays[key].shape
    factor = np.linalg.qr(seeded_array(seeded, shape)[:, :, 0, 0].astype(np.float64))[0]
    store.close(key, factor[:, :, None, None], atol=1e-4)


def check_layout(store: Store, name: str, flow: Glow) -> None:
    x = torch.from_numpy(store.take(f"{name}/input"))
    masks = read_masks(store, name)
    with torch.no_grad():
        check_first_step(store, name, flow, x, masks)
        result = flow(x, masks)
        store.close(f"{name}/log_p", result.log_p, **LIMIT)
        store.close(f"{name}/logdet", result.logdet, **LIMIT)
        for i, latent in enumerate(result.latents):
            store.close(f"{name}/z{i}", latent, **LIMIT)
        bits = bits_per_dim(result.log_p, result.logdet, x[0].numel())
        store.close(f"{name}/bits_per_dim_abs", bits, **LIMIT)
        back = float((flow.inverse(result.latents, masks) - x).abs().max())
        # an error of the recording; ours has its own rounding
        stored = float(store.take(f"{name}/reconstruction_max_error"))
        store.row(f"{name}/reconstruction_max_error", max(back, stored), RECONSTRUCTION)
        noise = [torch.from_numpy(store.take(f"{name}/eps{i}")) for i in range(len(result.latents))]
        store.close(f"{name}/sample", flow.sample(noise, masks), **LIMIT)
    check_jacobian(store, name, flow, x, masks)
    if f"{name}/init/log_p" in store:
        check_initialisation(store, name, flow, x)


def read_masks(store: Store, name: str) -> Tensor | None:
    """The condition of a conditional flow; None for others."""
    if (key := f"{name}/mask") not in store:
        return None
    shape = tuple(store.take(f"{key}/shape"))
    bits = np.unpackbits(store.take(key), count=int(np.prod(shape)))
    return torch.from_numpy(bits.reshape(shape).astype(np.float32))


def check_first_step(store: Store, name: str, flow: Glow, x: Tensor, masks: Tensor | None) -> None:
    """Compare squeeze and the parts of the first step, or the conditions."""
    for i, condition in enumerate(flow.conditions(masks)):
        if condition is not None:
            store.close(f"{name}/condition{i}", condition, **LIMIT)
    if f"{name}/squeezed" not in store:
        return
    step = flow.get_submodule("blocks.0.flows.0")
    assert isinstance(step, FlowStep)
    value = squeeze(x)
    store.close(f"{name}/squeezed", value, **LIMIT)
    for part in ("actnorm", "invconv", "coupling"):
        value, logdet = step.get_submodule(part)(value)
        key = f"{name}/flow0/{part}_logdet"
        store.close(f"{name}/flow0/{part}", value, **LIMIT)
        store.close(key, logdet.expand(store.arrays[key].shape), **LIMIT)


def check_jacobian(store: Store, name: str, flow: Glow, x: Tensor, masks: Tensor | None) -> None:
    """Compare the stored log-determinant with ours, and ours with the whole Jacobian, in float64, for one image."""
    precise = copy.deepcopy(flow).double()
    one, mask = x[:1].double(), None if masks is None else masks[:1].double()

    def latents(flat: Tensor) -> Tensor:
        return torch.cat([each.flatten() for each in precise(flat.view_as(one), mask).latents])

    matrix = torch.autograd.functional.jacobian(latents, one.flatten(), vectorize=True)
    found = torch.linalg.slogdet(matrix).logabsdet
    key = f"{name}/jacobian_slogdet_sample0"
    store.close(key, found, **LIMIT)
    with torch.no_grad():
        store.close(key, precise(one, mask).logdet.mean(), **LIMIT, note="our sum")


@torch.no_grad()
def check_initialisation(store: Store, name: str, flow: Glow, x: Tensor) -> None:
    """Compare a flow whose first batch initialises all scales and shifts."""
    fresh = copy.deepcopy(flow)
    for key, buffer in fresh.named_buffers():
        if key.endswith("initialized"):
            buffer.zero_()
    result = fresh(x)
    store.close(f"{name}/init/log_p", result.log_p, **LIMIT)
    store.close(f"{name}/init/logdet", result.logdet, **LIMIT)
    store.close(f"{name}/init/z_last", result.latents[-1], **LIMIT)
    for part in ("loc", "scale"):
        value = fresh.get_parameter(f"blocks.0.flows.0.actnorm.{part}")
        store.close(f"{name}/init/flow0_{part}", value, **LIMIT)
