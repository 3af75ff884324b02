"""Verifier nodes that look for something definite: a text, things, their number, color and place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management as mm
from comfy_api.latest import io

from ....verifiers.content.detector import THRESHOLDS
from ....verifiers.content.object_check import ObjectCheck
from ....verifiers.content.ocr import load_reader
from ....verifiers.content.text_accuracy import Line, TextAccuracy
from ...weights.detector import WANTED, load_detector
from ...weights.files import found, repositories, repository_path
from ..schema import inp, schema
from ..sockets import Verifier


class NSTextAccuracy(io.ComfyNode):
    """Scores how much of a text can be read in the image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSTextAccuracy",
            display_name="Text Accuracy (verifier)",
            category="noise search/verifiers",
            description="A verifier: reads the text in the image (OCR, on the CPU) and scores 1 minus the edit distance to the"
            " wanted text, per character. Needs the optional Python packages rapidocr and onnxruntime.",
            search_aliases=["OCR", "spelling", "typography", "text rendering", "RapidOCR"],
            inputs=[
                inp(
                    io.String, "text", multiline=True, default="",
                    tooltip="The text that the image should show, as it is read: from top to bottom, each row from left to"
                    " right. Without quotes. Usual: 1 to 10 words.",
                ),
                inp(
                    io.Float, "other_text", default=0.0, min=0.0, max=1.0, step=0.05,
                    tooltip="Price of a character before or after the wanted text; a wrong one costs 1. 0 (usual): other text"
                    " is free. 1: there should be no other text.",
                ),
                inp(io.Boolean, "ignore_case", default=True, tooltip="Whether 'Open' is as good as 'OPEN'. Usual: on."),
                inp(
                    io.Boolean, "ignore_spaces", default=True,
                    tooltip="Leave spaces and line breaks out of both texts. Usual: on, since readers often miss them.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="Scores from 0 (nothing of it) to 1 (exactly the text).")],
        )  # fmt: skip

    @classmethod
    def execute(cls, text: str, other_text: float, ignore_case: bool, ignore_spaces: bool) -> io.NodeOutput:
        load_reader()  # what is missing is found before the search instead of in it
        return io.NodeOutput(TextAccuracy(_read, text, other_text, ignore_case, ignore_spaces))


def _read(pixels: Any) -> Sequence[Line]:
    """Read one picture, unless the user cancelled."""
    mm.throw_exception_if_processing_interrupted()
    return load_reader()(pixels)


class NSObjectCheck(io.ComfyNode):
    """Scores whether the right things are in the image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSObjectCheck",
            display_name="Object Check (verifier)",
            category="noise search/verifiers",
            description="A verifier: an open-vocabulary detector (OWLv2, OWL-ViT, Grounding DINO, LLMDet) looks for things, and"
            " each check of presence, number, color or relation (after GenEval, Ghosh et al. 2023) gets a value from 0 to 1.",
            search_aliases=["GenEval", "object detection", "count objects", "OWLv2", "Grounding DINO", "LLMDet", "relation"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=repositories(WANTED),
                    tooltip=f"A folder in models/verifiers. The usual one: {WANTED.source}.",
                ),
                inp(
                    io.String, "checks", multiline=True, default="",
                    tooltip="One check on each line, in English: 'a red cup' (at least one), '2 cats' (exactly), 'no dog',"
                    " 'a cat left of a dog' (or right of, above, below). A color before the name is measured on the pixels."
                    " Usual: 1 to 6 lines.",
                ),
                inp(
                    io.Float, "threshold", default=0.0, min=0.0, max=0.95, step=0.01,
                    tooltip="Confidence, from 0 to 1, at which a box counts half. 0 (usual): the model's own, 0.1 for OWL and"
                    " 0.25 for Grounding DINO. Higher if things are found that are not there: 0.2 to 0.4.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="Scores from 0 to 1: the mean value of the checks.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return found(repository_path, WANTED, model_name)

    @classmethod
    def execute(cls, model_name: str, checks: str, threshold: float) -> io.NodeOutput:
        detector = load_detector(model_name)
        return io.NodeOutput(ObjectCheck(detector, checks, threshold or THRESHOLDS[detector.kind]))


NODES: list[type[io.ComfyNode]] = [NSTextAccuracy, NSObjectCheck]
