"""Verifier nodes."""

from __future__ import annotations

from typing import Any

import comfy.model_management as mm
from comfy_api.latest import io

from ....verifiers.clip.clip_score import ClipScore
from ....verifiers.composite.ensemble import GATE, MODES, RANK_MEAN, Ensemble
from ....verifiers.measures.guidance_gap import HIGH, PREFER, GuidanceGap
from ....verifiers.measures.statistics import ImageStatistics
from ...weights.clip import CLIP_SCORE
from ...weights.files import file_path, found
from ..schema import inp, prompt_input, schema
from ..sockets import Verifier
from .clip_choice import CONNECTED, chosen_pair, clip_inputs

MAX_VERIFIERS = 8


class NSImageStatistics(io.ComfyNode):
    """Scores sharpness, exposure, colorfulness and contrast."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        def weight(id: str, tooltip: str) -> io.Input:
            tooltip += " Usual weight: 0 to 1; 0 leaves it out, below 0 prefers less of it."
            return inp(io.Float, id, default=1.0, min=-10.0, max=10.0, step=0.05, tooltip=tooltip)

        return schema(
            node_id="NSImageStatistics",
            display_name="Image Statistics (verifier)",
            category="noise search/verifiers",
            description="A verifier without a model: measures the pixels' sharpness, exposure, colorfulness"
            " and contrast. Good for trying out a search, or as a small part of an ensemble.",
            search_aliases=["sharpness score", "blur", "contrast", "colorfulness", "exposure"],
            inputs=[
                weight("sharpness", "Sharpness: spread of the Laplacian. Noise counts as sharp."),
                weight("exposure", "Exposure: 1 at a mean brightness of one half, 0 at black or white."),
                weight("colorfulness", "Colorfulness (Hasler and Süsstrunk 2003): 0 is grey."),
                weight("contrast", "Contrast: twice the standard deviation of the brightness."),
            ],
            outputs=[Verifier.Output("verifier", tooltip="From 0 to 1 with weights above 0: the weighted mean of the four.")],
        )

    @classmethod
    def execute(cls, sharpness: float, exposure: float, colorfulness: float, contrast: float) -> io.NodeOutput:
        return io.NodeOutput(ImageStatistics(sharpness, exposure, colorfulness, contrast))


class NSClipScore(io.ComfyNode):
    """Scores how well an image fits a prompt, by CLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSClipScore",
            display_name="CLIP Score (verifier)",
            category="noise search/verifiers",
            description="A verifier: 100 times the cosine of the CLIP embeddings of image and prompt. Uses"
            " the connected CLIP and CLIP_VISION, or one file that holds both.",
            search_aliases=["CLIPScore", "prompt alignment", "text-image similarity"],
            inputs=[
                *clip_inputs(),
                prompt_input("77 tokens count (about 55 words)"),
            ],
            outputs=[Verifier.Output("verifier", tooltip="100 times a cosine; with CLIP-L/14 good matches lie around 25 to 32.")],
        )

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return model_name == CONNECTED or found(file_path, CLIP_SCORE, model_name)

    @classmethod
    def execute(cls, model_name: str, prompt: str, clip: Any | None = None, clip_vision: Any | None = None) -> io.NodeOutput:
        pair = chosen_pair(CLIP_SCORE, model_name, clip, clip_vision)
        verifier = ClipScore(pair.clip, pair.clip_vision, prompt, notes=pair.notes, network=pair.version)
        _ = verifier.text_features  # once, and a wrong encoder is found before the search instead of in it
        return io.NodeOutput(verifier)


class NSGuidanceGap(io.ComfyNode):
    """Scores candidates by how strongly guidance pulls on them; no picture is needed."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSGuidanceGap",
            display_name="Guidance Gap (verifier)",
            category="noise search/verifiers",
            description="A verifier without a model or a picture: how far apart the predictions with and without the"
            " prompt are in the first steps (CFG-Rejection, Wang et al. 2025, arXiv 2505.23343). Needs CFG above 1.",
            search_aliases=["CFG-Rejection", "ASD", "no verifier", "accumulated score difference"],
            inputs=[
                inp(
                    io.Int, "first_steps", default=10, min=0, max=10000,
                    tooltip="How many of a candidate's first model calls count; with most samplers one step is one call."
                    " 0: all. Paper: 10; it saturates at about 20.",
                ),
                inp(
                    io.Combo, "prefer", options=list(PREFER), default=HIGH,
                    tooltip="Whether a large gap is good. high: the paper's reading. Others found very large or small gaps"
                    " suspicious, and it differs by model and prompt: try it once with the verifier you trust as held_out"
                    " on your model, and choose what agrees with it.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="For searches only: it scores runs, not pictures.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, first_steps: int, prefer: str) -> io.NodeOutput:
        return io.NodeOutput(GuidanceGap(first_steps, prefer))


class NSVerifierEnsemble(io.ComfyNode):
    """Combines up to eight verifiers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        verifiers = [
            inp(Verifier, f"verifier_{i}", optional=True, tooltip=_verifier_tooltip(i)) for i in range(1, MAX_VERIFIERS + 1)
        ]
        weights = [
            inp(
                io.Float,
                f"weight_{i}",
                optional=True,
                default=1.0,
                min=-10.0,
                max=10.0,
                step=0.05,
                tooltip=f"Weight of verifier {i}. The paper weighs all alike (1); below 0 turns the verifier around.",
            )
            for i in range(1, MAX_VERIFIERS + 1)
        ]
        return schema(
            node_id="NSVerifierEnsemble",
            display_name="Verifier Ensemble",
            category="noise search/verifiers",
            description="Combines up to eight verifiers into one. An ensemble is harder to fool than any of its parts.",
            search_aliases=["combine verifiers", "rank mean", "verifier mix", "multiple rewards"],
            inputs=[
                *verifiers,
                *weights,
                inp(
                    io.Combo,
                    "mode",
                    options=list(MODES),
                    default=RANK_MEAN,
                    tooltip="rank mean (the paper's): mean of the ranks among all candidates. z-score: sum"
                    " of scores standardized over all candidates. weighted sum: plain sum, for scores of one"
                    " scale. gate: verifier 1 must reach the threshold, the others rank what does. calibrated"
                    " sum: sum of scores standardized by the search's first candidates, the same for all rounds.",
                ),
                inp(
                    io.Float,
                    "gate_threshold",
                    default=0.0,
                    min=-1e6,
                    max=1e6,
                    step=0.01,
                    tooltip="With mode 'gate': the least score of verifier 1 that passes, on its own scale"
                    " (CLIP-L/14: 22 to 28 is usual). Unused otherwise.",
                ),
                inp(
                    io.Int,
                    "calibrate_on",
                    optional=True,
                    default=8,
                    min=2,
                    max=4096,
                    tooltip="With mode 'calibrated sum': how many of the search's first candidates set each verifier's"
                    " mean and deviation. Usual: 8 to 16. Unused otherwise.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="For a search's 'verifier', Score Images or a further ensemble.")],
        )

    @classmethod
    def execute(cls, mode: str, gate_threshold: float, calibrate_on: int = 8, **slots: Any) -> io.NodeOutput:
        used = [i for i in range(1, MAX_VERIFIERS + 1) if slots.get(f"verifier_{i}") is not None]
        if mode == GATE and 1 not in used:
            raise ValueError(
                "Verifier Ensemble: input 'mode' is 'gate', but 'verifier_1', the gate, is not connected. Connect it."
            )
        parts = tuple(slots[f"verifier_{i}"] for i in used)
        weights = tuple(slots.get(f"weight_{i}", 1.0) for i in used)
        gates = tuple(gate_threshold if mode == GATE and i == 1 else None for i in used)
        check = mm.throw_exception_if_processing_interrupted
        return io.NodeOutput(Ensemble(parts, weights, mode, gates, "Verifier Ensemble", calibrate_on, check))


def _verifier_tooltip(i: int) -> str:
    if i == 1:
        return "A verifier; with mode 'gate', the one that must reach the threshold."
    return f"Verifier {i} of at most {MAX_VERIFIERS} (the paper combines 3); leave unused ones empty."


NODES: list[type[io.ComfyNode]] = [NSImageStatistics, NSClipScore, NSGuidanceGap, NSVerifierEnsemble]
