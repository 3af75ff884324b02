"""Verifier nodes on CLIP and SigLIP: preference, prompt alignment, aesthetics."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from ....verifiers.clip.aesthetic import FIRST, ONLY, Aesthetic, fold_head, head_shapes
from ....verifiers.clip.hps_v2 import HPSv2
from ....verifiers.clip.pick_score import PickScore
from ....verifiers.clip.siglip_score import SigLIPScore
from ...weights.clip import CLIP_SOURCE, ClipPair, load_clip_pair, load_clip_vision, notes_of, version_of
from ...weights.clip_settings import GELU
from ...weights.files import Wanted, below, check_keys, file_path, files, found, read_weights, repositories, repository_path
from ...weights.siglip import load_siglip
from ..schema import inp, prompt_input, schema
from ..sockets import Verifier

PICK_SCORE = Wanted(
    "PickScore", "model_name", ("clip_vision", "verifiers"),
    "model.safetensors of https://huggingface.co/yuvalkirstain/PickScore_v1",
)  # fmt: skip
HPS = Wanted(
    "HPS v2.1", "model_name", ("verifiers", "clip_vision"), "HPS_v2.1_compressed.pt of https://huggingface.co/xswu/HPSv2"
)
SIGLIP = Wanted(
    "SigLIP Score",
    "model_name",
    ("verifiers",),
    "all files of https://huggingface.co/google/siglip2-so400m-patch14-384, in a folder of their own",
)
HEAD = Wanted(
    "Aesthetic Score", "model_name", ("verifiers",),
    "sac+logos+ava1-l14-linearMSE.pth of https://github.com/christophschuhmann/improved-aesthetic-predictor",
)  # fmt: skip
CLIP_L = Wanted("Aesthetic Score", "clip_name", ("clip_vision",), CLIP_SOURCE)

CLIP_H = (24, 32)  # layers of the text and of the vision tower


def _clip_h(wanted: Wanted, name: str) -> ClipPair:
    pair = load_clip_pair(file_path(wanted, name), wanted, GELU)
    if pair.depths != CLIP_H:
        raise wanted.refused(
            name, f"a CLIP of {pair.depths[0]} text and {pair.depths[1]} vision layers; {wanted.node} is a CLIP-H, of 24 and 32"
        )
    return pair


class NSPickScore(io.ComfyNode):
    """Scores which images people would prefer for a prompt, by PickScore."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSPickScore",
            display_name="PickScore (verifier)",
            category="noise search/verifiers",
            description="A verifier: which pictures people prefer for a prompt, learned from half a million choices of users"
            " (Kirstain et al. 2023, arXiv 2305.01569). Scores lie around 18 to 24; a difference of 1 is 73 % preference.",
            search_aliases=["Pick-a-Pic", "human preference", "reward model"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=files(PICK_SCORE),
                    tooltip=f"PickScore's file in models/clip_vision or models/verifiers: {PICK_SCORE.source} (4 GB).",
                ),
                prompt_input("77 tokens (about 55 words) count"),
            ],
            outputs=[Verifier.Output("verifier", tooltip="For a search, an ensemble or Score Images. Higher is preferred.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return found(file_path, PICK_SCORE, model_name)

    @classmethod
    def execute(cls, model_name: str, prompt: str) -> io.NodeOutput:
        pair = _clip_h(PICK_SCORE, model_name)
        if pair.logit_scale is None:
            raise PICK_SCORE.refused(model_name, "a CLIP without its 'logit_scale', which the score is scaled by")
        return _ready(PickScore(pair.clip, pair.clip_vision, prompt, scale=math.exp(pair.logit_scale)))


class NSHPSv2(io.ComfyNode):
    """Scores which images people would prefer for a prompt, by HPSv2.1."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSHPSv2",
            display_name="HPS v2.1 (verifier)",
            category="noise search/verifiers",
            description="A verifier: which pictures people prefer for a prompt, learned from rankings of generated pictures"
            " (Wu et al. 2023, arXiv 2306.09341). Scores lie around 20 to 35, a hundred times what its own package returns.",
            search_aliases=["HPSv2", "human preference score", "reward model"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=files(HPS),
                    tooltip=f"HPSv2.1's file in models/verifiers or models/clip_vision: {HPS.source} (2 GB), or the same as"
                    " a Hugging Face CLIPModel in safetensors.",
                ),
                prompt_input("77 tokens (about 55 words) count"),
            ],
            outputs=[Verifier.Output("verifier", tooltip="For a search, an ensemble or Score Images. Higher is preferred.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return found(file_path, HPS, model_name)

    @classmethod
    def execute(cls, model_name: str, prompt: str) -> io.NodeOutput:
        pair = _clip_h(HPS, model_name)
        return _ready(HPSv2(pair.clip, pair.clip_vision, prompt, encode=pair.encode_pixels))


class NSSigLIPScore(io.ComfyNode):
    """Scores how well an image fits a prompt, by SigLIP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSSigLIPScore",
            display_name="SigLIP Score (verifier)",
            category="noise search/verifiers",
            description="A verifier: how well a picture fits a prompt, as the logit of SigLIP's or SigLIP 2's yes"
            " (arXiv 2303.15343, 2502.14786). Scores lie around -20 to 5; 0 is a probability of one half.",
            search_aliases=["SigLIP 2", "prompt alignment", "text-image similarity"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=repositories(SIGLIP),
                    tooltip="A folder in models/verifiers with all files of a SigLIP model in safetensors (config.json,"
                    f" model.safetensors, the tokenizer's). The usual one: {SIGLIP.source}. No NaFlex.",
                ),
                prompt_input("64 tokens (about 45 words) count"),
            ],
            outputs=[Verifier.Output("verifier", tooltip="For a search, an ensemble or Score Images. Higher fits better.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return found(repository_path, SIGLIP, model_name)

    @classmethod
    def execute(cls, model_name: str, prompt: str) -> io.NodeOutput:
        return _ready(SigLIPScore(load_siglip(SIGLIP, model_name), prompt))


class NSAestheticScore(io.ComfyNode):
    """Scores how much people would like an image, by LAION's aesthetic predictor."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSAestheticScore",
            display_name="Aesthetic Score (verifier)",
            category="noise search/verifiers",
            description="A verifier: how much people like a picture, whatever it shows (LAION's aesthetic predictor v2, on"
            " CLIP-L/14). No prompt: combine it with one that reads it. Scores lie around 4 to 7 of 10.",
            search_aliases=["LAION aesthetics", "improved aesthetic predictor", "beauty"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=files(HEAD),
                    tooltip=f"The head, in models/verifiers: {HEAD.source} (4 MB), or the same in safetensors.",
                ),
                inp(
                    io.Combo, "clip_name", options=files(CLIP_L),
                    tooltip=f"OpenAI's CLIP-L/14, in models/clip_vision: {CLIP_SOURCE}, or its vision tower alone. Name the"
                    " file of a CLIP Score node, and the two share its weights and its work.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="For a search, an ensemble or Score Images. Higher is liked better.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str, clip_name: str) -> bool | str:
        return said if (said := found(file_path, HEAD, model_name)) is not True else found(file_path, CLIP_L, clip_name)

    @classmethod
    def execute(cls, model_name: str, clip_name: str) -> io.NodeOutput:
        sd = below(read_weights(HEAD, model_name, file_path(HEAD, model_name)), FIRST, ONLY)
        check_keys(HEAD, model_name, sd, head_shapes(sd))
        weight, bias = fold_head(sd)
        clip_vision = load_clip_vision(file_path(CLIP_L, clip_name), CLIP_L)
        embedding = clip_vision.model.visual_projection.weight.shape[0]
        if embedding != len(weight):
            raise CLIP_L.refused(clip_name, f"a CLIP whose embeddings have {embedding} values; the head takes {len(weight)}")
        told = {"notes": notes_of(clip_vision), "score_version": version_of(clip_vision)}
        return io.NodeOutput(Aesthetic(clip_vision, weight, bias, **told))


def _ready(verifier: Any) -> io.NodeOutput:
    _ = verifier.text_features  # once, and what does not work is found before the search instead of in it
    return io.NodeOutput(verifier)


NODES: list[type[io.ComfyNode]] = [NSPickScore, NSHPSv2, NSSigLIPScore, NSAestheticScore]
