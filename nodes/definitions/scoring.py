"""Scoring images that exist already: a verifier without a search."""

from __future__ import annotations

from typing import Any

import torch
from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...search.selection.pairwise import finals_of
from ...verifiers.common.base import check_images, check_scores
from .schema import inp, schema
from .sockets import Verifier

NAME = "Score Images"


def best_first(scores: Tensor) -> list[int]:
    """Return the indices of scores (N,), best first; ties keep their order, NaN comes last."""
    return sorted(range(len(scores)), key=lambda i: (scores[i].isnan().item(), -scores[i].item()))


def _check_rows(what: str, rows: int, images: int) -> None:
    if rows != images:
        raise ValueError(
            f"{NAME}: input '{what}' has {rows} rows and 'images' has {images}; row k must belong to image k."
            f" Score one image for each row (of a video, one frame), or leave '{what}' unconnected."
        )


def ordered_latents(latents: dict[str, Any], order: list[int], images: int) -> dict[str, Any]:
    """Pick rows of a LATENT: its samples (nested ones too), and its noise mask and batch index."""
    samples = latents["samples"]
    _check_rows("latents", samples.shape[0], images)
    picked = {**latents, "samples": samples[order]}
    mask = latents.get("noise_mask")
    if mask is not None and mask.shape[0] == images:
        picked["noise_mask"] = mask[order]
    index = latents.get("batch_index")
    if index is not None and len(index) == images:
        picked["batch_index"] = [index[i] for i in order]
    return picked


def ordered_masks(masks: Tensor, order: list[int], images: int) -> Tensor:
    """Pick masks (N, H, W); one mask, (1, H, W) or (H, W), belongs to every image."""
    masks = masks[None] if masks.ndim == 2 else masks
    if masks.shape[0] == 1:
        return masks.expand(len(order), *masks.shape[1:]).clone()
    _check_rows("masks", masks.shape[0], images)
    return masks[order]


class NSScoreImages(io.ComfyNode):
    """Scores images and sorts them, best first."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSScoreImages",
            display_name=NAME,
            category="noise search",
            description="Scores a batch of images with a verifier and sorts it, best first, together with its latents and masks.",
            search_aliases=["rank images", "pick best image", "sort images", "best of batch"],
            inputs=[
                inp(io.Image, "images", tooltip="The images to score, one batch of any size."),
                inp(Verifier, "verifier", tooltip="What judges them: any verifier or ensemble."),
                inp(
                    io.Latent,
                    "latents",
                    optional=True,
                    tooltip="The images' latents, one row for each image, to be sorted along. Verifiers see them too.",
                ),
                inp(
                    io.Mask,
                    "masks",
                    optional=True,
                    tooltip="The images' masks, to be sorted along: one for each image, or one for all.",
                ),
                inp(
                    io.Int,
                    "keep",
                    optional=True,
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="How many of the best to put out; 0 keeps all. Usual: 1, or the 4 you would look at.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="Best first."),
                io.Latent.Output("latents", tooltip="In the images' new order, if connected."),
                io.Mask.Output("masks", tooltip="In the images' new order, if connected."),
                io.Float.Output("scores", is_output_list=True, tooltip="The scores, best first: a list."),
                io.String.Output("order", tooltip="Places in the input, from 0, as in 3,0,2."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        verifier: Any,
        latents: dict[str, Any] | None = None,
        masks: Tensor | None = None,
        keep: int = 0,
    ) -> io.NodeOutput:
        pixels = check_images(images, NAME)
        rows = None if latents is None else latents["samples"]
        if rows is not None:
            _check_rows("latents", rows.shape[0], len(images))
        scores = check_scores(verifier.name, verifier.score(pixels, latents=rows), len(images))
        if finals := finals_of(verifier, scores.tolist(), lambda i: pixels[i : i + 1]):
            scores = scores.index_copy(0, torch.tensor(list(finals.scores)), torch.tensor(list(finals.scores.values())))
        order = best_first(scores)[: keep or None]
        return io.NodeOutput(
            images[order],
            _unconnected("latents") if latents is None else ordered_latents(latents, order, len(images)),
            _unconnected("masks") if masks is None else ordered_masks(masks, order, len(images)),
            scores[order].tolist(),
            ",".join(map(str, order)),
        )


def _unconnected(what: str) -> ExecutionBlocker:
    return ExecutionBlocker(f"{NAME}: output '{what}' has nothing to give; connect input '{what}'.")


NODES: list[type[io.ComfyNode]] = [NSScoreImages]
