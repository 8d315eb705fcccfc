"""Golden data of TPR's identity assignment: three videos in one stream, with empty frames."""

from __future__ import annotations

import numpy as np

from visdeploy.methods.tpr_boxes import scaled_boxes
from visdeploy.tracking import ObjectMemory

from .core import Store


def check_tracker(store: Store) -> None:
    """Check every frame of `tracker.npz` with the runtime's memory.

    The published implementation has a single memory, reset by the first frame of a video only if it has detections.
    """
    limits = store.golden.tolerance
    network, output = ((int(h), int(w)) for h, w in (store.take("network_hw"), store.take("output_hw")))
    score_weight, iou_weight, label_weight = (float(v) for v in store.take("match_coefficients"))

    def new_memory() -> ObjectMemory:
        return ObjectMemory(score_weight=score_weight, iou_weight=iou_weight, label_weight=label_weight)

    memory = new_memory()
    for t in range(len(store.keys(r"f\d+/in/is_first"))):
        boxes, labels = store.take(f"f{t}/in/boxes"), store.take(f"f{t}/in/labels")
        if store.take(f"f{t}/in/is_first").all() and len(labels):
            memory = new_memory()
        final = scaled_boxes(boxes, network, output)
        embeddings, scores = store.take(f"f{t}/in/emb"), store.take(f"f{t}/in/scores")
        found = memory.update(embeddings, boxes, labels, scores, first_boxes=final)
        store.exact(f"f{t}/out/obj_ids", found.object_ids)
        if f"f{t}/out/comp_scores" in store:
            store.close(f"f{t}/out/comp_scores", found.scores, atol=limits["match_scores"]["abs"])
        store.close(f"f{t}/out/final_boxes", final, atol=limits["boxes"]["abs_pixels"])
        store.close(f"f{t}/out/memory_boxes", memory.objects.boxes, atol=limits["boxes"]["abs_pixels"])
        store.exact(f"f{t}/out/memory_emb", memory.objects.embeddings)
        store.exact(f"f{t}/out/memory_labels", memory.objects.labels)
        store.row(f"f{t}/memory_rows", float(np.any(memory.objects.object_ids != np.arange(memory.num_objects))), 0.0)
