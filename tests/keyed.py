"""Objects that keys read, with fixed contents: verifiers, what they hold, and what else of the pack may be an input of a node.

KEYED["ClipScore"].make()              # as its node makes it, with stand-ins for models
KEYED["ClipScore"].changed("prompt")   # another one, whose `prompt` differs
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from inprocess import boot

boot()

import comfy.clip_vision
import comfy.controlnet
import comfy.weight_adapter
import torch
from every_method import METHODS

from noise_search.nodes.adapter.graph_links import Chain
from noise_search.nodes.adapter.noise import BatchNoise, RecipeNoise, SegmentNoise
from noise_search.nodes.adapter.subgraph import SubGraph
from noise_search.search.base.budget import StopRules
from noise_search.search.noise import proposals
from noise_search.search.noise.recipe import Recipe
from noise_search.search.noise.recipe_text import GIVEN
from noise_search.search.spec import specs_in
from noise_search.verifiers.api.judge import ApiJudge
from noise_search.verifiers.clip.aesthetic import Aesthetic
from noise_search.verifiers.clip.clip_score import ClipScore
from noise_search.verifiers.clip.hps_v2 import HPSv2
from noise_search.verifiers.clip.pick_score import PickScore
from noise_search.verifiers.clip.siglip_score import SigLIPScore
from noise_search.verifiers.composite.cascade import Cascade
from noise_search.verifiers.composite.ensemble import Ensemble
from noise_search.verifiers.composite.graph_score import GraphScore
from noise_search.verifiers.content.classifier import ClassifierLogit
from noise_search.verifiers.content.object_check import ObjectCheck
from noise_search.verifiers.content.text_accuracy import TextAccuracy
from noise_search.verifiers.content.zero_shot import ZeroShotClass
from noise_search.verifiers.human.human import HumanVerifier
from noise_search.verifiers.image_reward.image_reward import ImageReward
from noise_search.verifiers.measures.guidance_gap import GuidanceGap
from noise_search.verifiers.measures.reference import ReferenceSimilarity
from noise_search.verifiers.measures.self_similarity import SelfSimilarity
from noise_search.verifiers.measures.statistics import ImageStatistics
from noise_search.verifiers.vlm.hps_v3 import HPSv3
from noise_search.verifiers.vlm.unified_reward import UnifiedReward
from noise_search.verifiers.vlm.vlm_judge import VLMJudge


@dataclass(frozen=True)
class Keyed:
    """How an object that keys read is made.

    Attributes:
        build: makes it, from keyword arguments.
        given: those arguments.
        changes: for each of its attributes that keys read, by the name that they read it under, other arguments that change it.
    """

    build: Callable[..., Any]
    given: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def make(self) -> Any:
        return self.build(**self.given)

    def changed(self, attribute: str) -> Any:
        return self.build(**{**self.given, **self.changes[attribute]})


def numbers(*shape: int, plus: float = 0.0) -> torch.Tensor:
    """Return 0, 1/8, 2/8 and so on, which any machine computes alike, plus a number."""
    return torch.arange(torch.Size(shape).numel()).reshape(shape) / 8 + plus


CLIP = SimpleNamespace(patcher=None)
TOKENIZER = SimpleNamespace(get_added_vocab=dict, encode=lambda text, **_: [ord(text.strip()[0])])
VLM = SimpleNamespace(processor=SimpleNamespace(tokenizer=TOKENIZER), held=None)
TEXT, OTHER_TEXT = {"prompt": "a cat"}, {"prompt": "a dog"}
PROMPT = {"prompt": OTHER_TEXT}
BY_CLIP = {"clip": CLIP, "clip_vision": CLIP}
OTHER_NETWORK = {"score_version": {"network": ("vision hidden_act gelu",)}}


def sub_graph(value: float = 0.5) -> SubGraph:
    """Return a chain of one node, which reads one value of another."""
    chain = Chain(("2", 0), frozenset({"2"}), frozenset({"1"}), (("3", 0),), frozenset(), None, "a chain")
    return SubGraph(chain, [[numbers(2, plus=value)]], None)


def control(hint: float = 0.0, extra: float = 0.0, previous: Any = None) -> Any:
    made = comfy.controlnet.ControlBase().set_cond_hint(numbers(1, 3, 2, 2, plus=hint), extra_concat=[numbers(2, plus=extra)])
    made.set_previous_controlnet(previous)
    return made


def seen(**outputs: torch.Tensor) -> Any:
    made = comfy.clip_vision.Output()
    for name in ("image_embeds", "last_hidden_state", "penultimate_hidden_states"):
        made[name] = outputs.get(name, numbers(1, 4))
    return made


def lora(value: float = 0.0) -> Any:
    return comfy.weight_adapter.LoRAAdapter(set(), (numbers(4, 2, plus=value), numbers(2, 4), 1.0, None, None, None))


def recipe_noise(given: torch.Tensor | None = None) -> RecipeNoise:
    return RecipeNoise(Recipe(GIVEN, 7), given)


STATISTICS = {"weights": {"sharpness": 0.5}, "prompt": OTHER_TEXT}
PARTS = (ClipScore(**BY_CLIP, **TEXT), ImageStatistics())
OTHER_PARTS = (ClipScore(**BY_CLIP, **OTHER_TEXT), ImageStatistics())
CASCADE = {"cheap": PARTS[1], "expensive": PARTS[0]}
VERIFIERS: dict[str, Keyed] = {
    "Aesthetic": Keyed(
        Aesthetic, {"clip_vision": CLIP, "weight": numbers(4), "bias": 5.0},
        {**PROMPT, "score_version": {"score_version": ("vision num_attention_heads 4",)}},
    ),
    "ApiJudge": Keyed(ApiJudge, {"client": None, "model": "tiny-vlm", **TEXT}, PROMPT),
    "Cascade": Keyed(lambda **both: Cascade(**both, count=2), CASCADE, {"prompt": {**CASCADE, "expensive": OTHER_PARTS[0]}}),
    "ClassifierLogit": Keyed(ClassifierLogit, {"model": None, "prepare": None, "labels": ("cat", "dog"), "target": 1}, PROMPT),
    "ClipScore": Keyed(ClipScore, {**BY_CLIP, **TEXT}, {**PROMPT, **OTHER_NETWORK}),
    "Ensemble": Keyed(
        Ensemble, {"parts": PARTS, "weights": (1.0, 0.5)},
        {"parts": {"parts": PARTS[::-1]}, "weights": {"weights": (1.0, 0.25)}, "prompt": {"parts": OTHER_PARTS}},
    ),
    "GraphScore": Keyed(
        GraphScore, {"run": sub_graph(), "name": "a score"}, {**PROMPT, "run": {"run": sub_graph(0.25)}}
    ),
    "GuidanceGap": Keyed(GuidanceGap, {}, PROMPT),
    "HPSv2": Keyed(HPSv2, {**BY_CLIP, **TEXT, "encode": None}, {**PROMPT, **OTHER_NETWORK}),
    "HPSv3": Keyed(HPSv3, {"model": VLM, **TEXT}, PROMPT),
    "HumanVerifier": Keyed(
        HumanVerifier, {"asker": None, "assistant": PARTS[0]}, {**PROMPT, "assistant": {"assistant": OTHER_PARTS[0]}}
    ),
    "ImageReward": Keyed(ImageReward, {"model": None, "tokenizer": None, **TEXT}, PROMPT),
    "ImageStatistics": Keyed(ImageStatistics, {}, STATISTICS),
    "ObjectCheck": Keyed(
        ObjectCheck, {"detector": SimpleNamespace(check_labels=lambda labels: None), "checks": "2 cats", "threshold": 0.1},
        {"prompt": {"checks": "2 dogs"}},
    ),
    "PickScore": Keyed(PickScore, {**BY_CLIP, **TEXT}, {**PROMPT, **OTHER_NETWORK}),
    "ReferenceSimilarity": Keyed(
        ReferenceSimilarity, {"clip_vision": CLIP, "reference": numbers(1, 1, 2, 3)},
        {**PROMPT, "reference": {"reference": numbers(1, 1, 2, 3, plus=0.25)}},
    ),
    "SelfSimilarity": Keyed(SelfSimilarity, {"clip_vision": CLIP, "sigma": 0.4}, PROMPT),
    "SigLIPScore": Keyed(SigLIPScore, {"siglip": None, **TEXT}, PROMPT),
    "TextAccuracy": Keyed(TextAccuracy, {"read": None, "text": "OPEN"}, {"prompt": {"text": "SHUT"}}),
    "UnifiedReward": Keyed(UnifiedReward, {"model": VLM, **TEXT}, PROMPT),
    "VLMJudge": Keyed(VLMJudge, {"model": VLM, **TEXT}, PROMPT),
    "ZeroShotClass": Keyed(
        ZeroShotClass, {**BY_CLIP, "classes": ("cat", "dog"), "templates": ("a photo of a {}.",)}, {**PROMPT, **OTHER_NETWORK}
    ),
}  # fmt: skip
HELD_BY_OTHERS: dict[str, Keyed] = {
    "SubGraph": Keyed(sub_graph, {}, {"given": {"value": 0.25}}),
    "RecipeNoise": Keyed(recipe_noise, {}, {"given": {"given": numbers(1, 4)}}),
    "SegmentNoise": Keyed(SegmentNoise, {"noise": numbers(1, 4), "seed": 1, "drawn": 2}),
    "BatchNoise": Keyed(BatchNoise, {"noises": [recipe_noise()]}),
    "StopRules": Keyed(StopRules),
    "ControlBase": Keyed(
        control, {},
        {"cond_hint_original": {"hint": 0.25}, "extra_concat_orig": {"extra": 0.25}, "previous_controlnet": {"previous": lora()}},
    ),
    "Output": Keyed(
        seen, {}, {n: {n: numbers(1, 4, plus=0.25)} for n in ("image_embeds", "last_hidden_state", "penultimate_hidden_states")}
    ),
    "LoRAAdapter": Keyed(lora, {}, {"weights": {"value": 0.25}}),
}  # fmt: skip
PROPOSALS = [spec() for spec in specs_in(proposals)]


def by_class(objects: Iterable[Any]) -> dict[str, Keyed]:
    """Return how objects of the pack without an attribute that keys read are made, by class; of each class the first."""
    first = {type(made).__qualname__: made for made in reversed([*objects])}
    return {name: Keyed(lambda made=made: made) for name, made in first.items()}


KEYED = {**VERIFIERS, **HELD_BY_OTHERS, **by_class(METHODS.values()), **by_class(PROPOSALS)}
