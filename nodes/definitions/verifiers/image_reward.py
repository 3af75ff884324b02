"""The ImageReward node, and its files: weights, and BERT's vocabulary beside them."""

from __future__ import annotations

import os

import comfy.ops
from comfy_api.latest import io

from ....verifiers.image_reward.blip import VISION, Sizes, load_network, weight_shapes
from ....verifiers.image_reward.image_reward import ImageReward
from ....verifiers.image_reward.wordpiece import ADDED, load_tokenizer, read_vocabulary
from ...weights.files import HeldModel, Wanted, below, check_keys, file_path, files, found, held, read_weights
from ..schema import inp, prompt_input, schema
from ..sockets import Verifier

WEIGHTS = Wanted(
    "ImageReward", "model_name", ("verifiers",), "ImageReward.pt (1.8 GB) of https://huggingface.co/THUDM/ImageReward"
)
VOCABULARY = "vocab.txt"
VOCABULARY_SOURCE = f"{VOCABULARY} (232 kB) of https://huggingface.co/google-bert/bert-base-uncased"


class NSImageReward(io.ComfyNode):
    """Scores how people would like an image as the picture of a prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSImageReward",
            display_name="ImageReward (verifier)",
            category="noise search/verifiers",
            description="A verifier: how people would like an image as the picture of the prompt (ImageReward v1.0, Xu et"
            " al. 2023, arXiv 2304.05977). One of the verifiers of the paper this pack follows.",
            search_aliases=["IR", "human preference", "prompt alignment", "BLIP", "reward model"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=files(WEIGHTS),
                    tooltip="The weights, a file in models/verifiers, as .pt or the same as .safetensors. Usual:"
                    f" {WEIGHTS.source}. The same folder must hold {VOCABULARY_SOURCE}.",
                ),
                prompt_input("35 tokens count (about 25 words), so put what matters first"),
            ],
            outputs=[
                Verifier.Output("verifier", tooltip="For a search or Score Images. Scores mostly lie between -2 and 2.")
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return found(file_path, WEIGHTS, model_name)

    @classmethod
    def execute(cls, model_name: str, prompt: str) -> io.NodeOutput:
        path = file_path(WEIGHTS, model_name)
        vocabulary = _vocabulary(model_name, path)
        model = held("ImageReward", path, lambda: load_model(model_name, path))
        _check_vocabulary(model_name, vocabulary, model.module.sizes.words)
        verifier = ImageReward(model, load_tokenizer(vocabulary), prompt)
        _ = verifier.tokens  # once, and a prompt that is too long is told before the search
        return io.NodeOutput(verifier)


def load_model(name: str, path: str) -> HeldModel:
    """Load the network from its file.

    Raises:
        ValueError: the file is damaged, or its weights are of another model.
    """
    sd = below(read_weights(WEIGHTS, name, path), f"{VISION}pos_embed")
    try:
        sizes = Sizes.of(sd)
    except ValueError as error:
        raise WEIGHTS.refused(name, f"weights of another model ({error})") from error
    check_keys(WEIGHTS, name, sd, weight_shapes(sizes))
    return HeldModel(load_network(sizes, sd, comfy.ops.manual_cast))


def _vocabulary(name: str, path: str) -> dict[str, int]:
    beside = os.path.join(os.path.dirname(path), VOCABULARY)
    if not os.path.isfile(beside):
        raise _unusable(name, f"whose folder holds no {VOCABULARY} ({beside})")
    try:
        return read_vocabulary(beside)
    except ValueError as error:
        raise _unusable(name, f"and {beside} is no vocabulary of BERT's: {error}") from error


def _check_vocabulary(name: str, vocabulary: dict[str, int], words: int) -> None:
    if len(vocabulary) + len(ADDED) != words:
        raise _unusable(
            name, f"and the {VOCABULARY} beside it has {len(vocabulary)} tokens, where the weights want {words - len(ADDED)}"
        )


def _unusable(name: str, why: str) -> ValueError:
    return ValueError(f"ImageReward: input 'model_name' is {name!r}, {why}. Put {VOCABULARY_SOURCE} into its folder.")


NODES: list[type[io.ComfyNode]] = [NSImageReward]
