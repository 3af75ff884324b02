"""Nodes of verifiers that ask whether a picture shows one class."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from ....verifiers.content.classifier import LOG_PROBABILITY, OUTPUTS, ClassifierLogit, class_index
from ....verifiers.content.zero_shot import ZeroShotClass
from ...weights.classifier import load_classifier
from ...weights.clip import CLIP_FOLDER, CLIP_SOURCE, ClipPair
from ...weights.files import FOLDER, Wanted, file_path, found, repositories, repository_path
from ..schema import inp, schema
from ..sockets import Verifier
from .clip_choice import CONNECTED, chosen_pair, clip_inputs

CLASSIFIER = Wanted(
    "Classifier Logit", "model_name", (FOLDER,),
    "config.json, model.safetensors and preprocessor_config.json of https://huggingface.co/facebook/dinov2-base-imagenet1k-1-layer",
)  # fmt: skip
CLIP = Wanted("Zero-Shot Class", "model_name", (CLIP_FOLDER,), CLIP_SOURCE)
TEMPLATES = "a photo of a {}.\na picture of a {}.\nan image of a {}."
OUTPUT = (
    "What the score is. log probability: best for a search, since it still tells pictures apart that the model is sure of."
    " probability: from 0 to 1, the same order. logit: the paper's; it does not know of the other classes."
)


class NSClassifierLogit(io.ComfyNode):
    """Scores how surely an image classifier sees one class."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSClassifierLogit",
            display_name="Classifier Logit (verifier)",
            category="noise search/verifiers",
            description="A verifier: how surely an image classifier (DINOv2 with a linear head, ViT, ConvNeXt, ...) sees one"
            " class, such as one of ImageNet's 1000. The supervised verifier of Ma et al. 2025, arXiv 2501.09732.",
            search_aliases=["supervised verifier", "ImageNet class", "DINO", "image classification"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=repositories(CLASSIFIER),
                    tooltip=f"A folder in models/{FOLDER} with a transformers image classifier: {CLASSIFIER.source}.",
                ),
                inp(
                    io.String, "class_name", default="",
                    tooltip="The class to look for: a name from the folder's config.json, such as golden retriever, or its number"
                    " from 0 (ImageNet: 0 to 999; golden retriever is 207).",
                ),
                inp(io.Combo, "output", options=list(OUTPUTS), default=LOG_PROBABILITY, tooltip=OUTPUT),
            ],
            outputs=[Verifier.Output("verifier", tooltip="Higher is surer. Log probability: 0 is certain, -6.9 is one in 1000.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return found(repository_path, CLASSIFIER, model_name)

    @classmethod
    def execute(cls, model_name: str, class_name: str, output: str) -> io.NodeOutput:
        model = load_classifier(CLASSIFIER, model_name)
        target = class_index(model.labels, class_name, CLASSIFIER.node)
        return io.NodeOutput(ClassifierLogit(model, model.prepare, model.labels, target, output, model.exclusive))


class NSZeroShotClass(io.ComfyNode):
    """Scores how surely CLIP sees one class and not others."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSZeroShotClass",
            display_name="Zero-Shot Class (verifier)",
            category="noise search/verifiers",
            description="A verifier: how surely CLIP takes a picture for one class and not for others that you name. Needs no"
            " trained classifier. The CLIP verifier of Ma et al. 2025, arXiv 2501.09732.",
            search_aliases=["CLIP classifier", "zero shot", "class probability", "contrastive"],
            inputs=[
                *clip_inputs(),
                inp(io.String, "class_name", default="", tooltip="What the picture should show, in one to four words: dog."),
                inp(
                    io.String, "other_classes", multiline=True, default="",
                    tooltip="What it might show instead, one a line or with commas between: cat, wolf, fox. Usual: 3 to 100, the"
                    " likeliest mistakes first of all.",
                ),
                inp(
                    io.String, "templates", multiline=True, default=TEMPLATES,
                    tooltip="Texts that a class is put into at {}, one a line; a class is their mean. Usual: 1 to 80; say there"
                    " what all pictures are, as in: a pixel art sprite of a {}.",
                ),
                inp(io.Combo, "output", options=list(OUTPUTS), default=LOG_PROBABILITY, tooltip=OUTPUT),
            ],
            outputs=[Verifier.Output("verifier", tooltip="Higher is surer. Log probability: 0 is certain.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return model_name == CONNECTED or found(file_path, CLIP, model_name)

    @classmethod
    def execute(
        cls, model_name: str, class_name: str, other_classes: str, templates: str, output: str,
        clip: Any | None = None, clip_vision: Any | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        pair = chosen_pair(CLIP, model_name, clip, clip_vision)
        others = [word.strip() for word in other_classes.replace(",", "\n").splitlines() if word.strip()]
        lines = [line.strip() for line in templates.splitlines() if line.strip()]
        classes = [class_name.strip(), *others]
        told = {"notes": pair.notes, "network": pair.version}
        verifier = ZeroShotClass(pair.clip, pair.clip_vision, classes, lines, output, logit_scale(pair), **told)
        _ = verifier.class_features  # once, and a wrong encoder is found before the search instead of in it
        return io.NodeOutput(verifier)


def logit_scale(pair: ClipPair) -> float:
    """Return CLIP's logit scale: the file's, else the CLIP object's (core's default is 100)."""
    if pair.logit_scale is not None:
        return math.exp(pair.logit_scale)
    towers = (getattr(pair.clip.cond_stage_model, name, None) for name in ("clip_g", "clip_h", "clip_l"))
    scale = next((tower.logit_scale for tower in towers if hasattr(tower, "logit_scale")), None)
    return 100.0 if scale is None else scale.float().exp().item()


NODES: list[type[io.ComfyNode]] = [NSClassifierLogit, NSZeroShotClass]
