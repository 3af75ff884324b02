"""A stand-in for other packs: nodes with their interfaces, and nodes that use what ComfyUI's nodes may use.

`ImageRewardLoader` and `ImageRewardScore` have the interface of the nodes of ZaneA/ComfyUI-ImageReward (old style; a batch
is averaged into one number; FLOAT and STRING), with a model that can be computed by hand: how far the picture's mean color is
on the side of the colors that the prompt names. Every node counts its runs in `RUNS`, by node id where it knows it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from comfy_api.latest import ComfyAPISync, io
from comfy_execution.graph_utils import ExecutionBlocker, GraphBuilder

RUNS: Counter[str] = Counter()
KEPT: list[Any] = []  # what `ForeignKeep` was given


class ColorModel:
    """Scores as ImageReward's model does: `score(prompt, [picture])`, the picture in 8 bits."""

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def score(self, prompt: str, pictures: list[torch.Tensor]) -> float:
        wanted = [channel for channel, word in enumerate(("red", "green", "blue")) if word in prompt]
        mean = pictures[0].float().mean(dim=(0, 1))
        return self.sign * float(mean[wanted].sum() - mean.mean()) / 255


class ImageRewardLoader:
    CATEGORY = "foreign"
    RETURN_TYPES = ("IMAGEREWARD_MODEL",)
    FUNCTION = "load_model"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("STRING", {"multiline": False, "default": "ImageReward-v1.0"})}}

    def load_model(self, model):
        RUNS["load"] += 1
        return (ColorModel(-1.0 if model == "contrary" else 1.0),)


class ImageRewardScore:
    CATEGORY = "foreign"
    RETURN_TYPES = ("FLOAT", "STRING")
    RETURN_NAMES = ("SCORE_FLOAT", "SCORE_STRING")
    FUNCTION = "score_images"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"model": ("IMAGEREWARD_MODEL",), "prompt": ("STRING", {"multiline": True}), "images": ("IMAGE",)}}

    def score_images(self, model, prompt, images):
        RUNS["score"] += 1
        pictures = [(255.0 * image.cpu()).clamp(0, 255).to(torch.uint8) for image in images]
        score = sum(model.score(prompt, [picture]) for picture in pictures) / len(pictures)
        return (score, str(score))


class ForeignAsync(io.ComfyNode):
    """A new, async node: waits, then answers the brightness."""

    @classmethod
    def define_schema(cls):
        return io.Schema("ForeignAsync", category="foreign", inputs=[io.Image.Input("image")], outputs=[io.Float.Output()],
                         hidden=[io.Hidden.unique_id, io.Hidden.prompt])  # fmt: skip

    @classmethod
    async def execute(cls, image):
        await asyncio.sleep(0.001)
        assert torch.is_inference_mode_enabled()
        RUNS[f"async {cls.hidden.unique_id} of {len(cls.hidden.prompt)}"] += 1
        return io.NodeOutput(image.mean().item())


class ForeignLists(io.ComfyNode):
    """Takes lists and answers a list: the brightness of each picture of each batch."""

    @classmethod
    def define_schema(cls):
        return io.Schema("ForeignLists", category="foreign", inputs=[io.Image.Input("images"), io.Float.Input("weight")],
                         outputs=[io.Float.Output(is_output_list=True)], is_input_list=True)  # fmt: skip

    @classmethod
    def execute(cls, images, weight):
        RUNS["lists"] += 1
        assert isinstance(images, list) and isinstance(weight, list)
        return io.NodeOutput([weight[0] * picture.mean().item() for batch in images for picture in batch])


class ForeignSplit:
    """Old style, hidden inputs, one output list: the pictures of a batch one by one."""

    CATEGORY = "foreign"
    RETURN_TYPES = ("IMAGE",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "split"

    @classmethod
    def INPUT_TYPES(cls):
        hidden = {"unique_id": "UNIQUE_ID", "prompt": "PROMPT", "graph": "DYNPROMPT", "info": "EXTRA_PNGINFO"}
        return {"required": {"images": ("IMAGE",)}, "hidden": hidden}

    def split(self, images, unique_id, prompt, graph, info):
        assert prompt[unique_id]["class_type"] == graph.get_node(unique_id)["class_type"] == "ForeignSplit"
        RUNS[f"split {info['workflow'] if info else None}"] += 1
        return ([image[None] for image in images],)


class ForeignNumbers:
    """Old style: a list of whole numbers, one after another."""

    CATEGORY = "foreign"
    RETURN_TYPES = ("INT",)
    OUTPUT_IS_LIST = (True,)
    FUNCTION = "read"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"numbers": ("STRING", {})}}

    def read(self, numbers):
        return ([int(number) for number in numbers.split(",")],)


class ForeignSwitch:
    """Old style, lazy: asks only for the side it takes."""

    CATEGORY = "foreign"
    RETURN_TYPES = ("FLOAT",)
    FUNCTION = "take"

    @classmethod
    def INPUT_TYPES(cls):
        lazy = {"lazy": True}
        return {"required": {"first": ("BOOLEAN", {})}, "optional": {"on": ("FLOAT", lazy), "off": ("FLOAT", lazy)}}

    def check_lazy_status(self, first, on=None, off=None):
        return ["on"] if first else ["off"]

    def take(self, first, on=None, off=None):
        assert (on is None) != (off is None)
        return (on if first else off,)


class ForeignChoice:
    """Old style, lazy: asks for the side that a picture decides on."""

    CATEGORY = "foreign"
    RETURN_TYPES = ("FLOAT",)
    FUNCTION = "take"

    @classmethod
    def INPUT_TYPES(cls):
        lazy = {"lazy": True}
        return {"required": {"image": ("IMAGE",)}, "optional": {"bright": ("FLOAT", lazy), "dark": ("FLOAT", lazy)}}

    def check_lazy_status(self, image, bright=None, dark=None):
        return ["bright"] if image.mean() > 0.5 else ["dark"]

    def take(self, image, bright=None, dark=None):
        assert (bright is None) != (dark is None)
        return (dark if bright is None else bright,)


class ForeignNumber:
    """The brightness of a batch, as many types; or something that is no number; or trouble."""

    CATEGORY = "foreign"
    RETURN_TYPES = ("SCORE",)  # a type of the pack's own
    FUNCTION = "number"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "kind": ("STRING", {})}}

    def __init__(self):
        RUNS["made"] += 1

    def number(self, image, kind):
        RUNS[f"number {kind}"] += 1
        value = image.mean().item()
        if kind == "trouble":
            raise KeyError("no such weight")
        if kind == "cancel":
            comfy.model_management.interrupt_current_processing(True)
            comfy.model_management.throw_exception_if_processing_interrupted()
        if kind == "scribble":
            image.zero_()
            torch.manual_seed(0)
        if kind == "progress":
            bar = comfy.utils.ProgressBar(3)
            bar.update(1)
            ComfyAPISync().execution.set_progress(2, 3)
        made = {
            "int": lambda: round(1000 * value), "text": lambda: f" {value}\n", "bool": lambda: value > 0.5,
            "tensor": lambda: torch.tensor(value), "tensor 1": lambda: torch.tensor([[value]]), "list": lambda: [value],
            "array": lambda: torch.tensor([value]).numpy(), "scalar": lambda: torch.tensor(value).numpy()[()],
            "words": lambda: f"score: {value}", "two": lambda: [value, value], "none": lambda: None,
            "picture": lambda: image, "dict": lambda: {"score": value}, "each": lambda: image.mean(dim=(1, 2, 3)),
            "blocked": lambda: ExecutionBlocker("not safe"),
        }  # fmt: skip
        return (made.get(kind, lambda: value)(),)


class ForeignExpand(io.ComfyNode):
    """Builds another node while it runs."""

    @classmethod
    def define_schema(cls):
        return io.Schema("ForeignExpand", category="foreign", inputs=[io.Image.Input("image")], outputs=[io.Float.Output()],
                         enable_expand=True)  # fmt: skip

    @classmethod
    def execute(cls, image):
        graph = GraphBuilder()
        inner = graph.node("ForeignNumber", image=image, kind="float")
        return io.NodeOutput(inner.out(0), expand=graph.finalize())


class ForeignTwice(io.ComfyNode):
    """Builds two searches that get what it was given, each with a seed of its own, and shows both at itself."""

    @classmethod
    def define_schema(cls):
        sockets = {"model": io.Model, "positive": io.Conditioning, "negative": io.Conditioning, "latent_image": io.Latent,
                   "vae": io.Vae, "verifier": io.Custom("NS_VERIFIER"), "method": io.Custom("NS_METHOD")}  # fmt: skip
        inputs = [kind.Input(name) for name, kind in sockets.items()]
        inputs += [io.Int.Input("seed"), io.Int.Input("steps"), io.Int.Input("budget"), io.String.Input("choose", default="")]
        return io.Schema("ForeignTwice", category="foreign", inputs=inputs, enable_expand=True,
                         outputs=[io.Image.Output("first"), io.Image.Output("second"), io.String.Output("report")])  # fmt: skip

    @classmethod
    def execute(cls, seed, **inputs):
        graph = GraphBuilder()
        more = {"cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0, "keep": 1}
        one, two = (graph.node("NSSearchSampler", seed=seed + i, **more, **inputs) for i in range(2))
        return io.NodeOutput(one.out(0), two.out(0), two.out(7), expand=graph.finalize())


class ForeignLoop(io.ComfyNode):
    """Repeats the node before it with other seeds, as loops do: each copy is shown at the node itself."""

    @classmethod
    def define_schema(cls):
        return io.Schema("ForeignLoop", category="foreign", enable_expand=True, outputs=[io.Image.Output(), io.Image.Output()],
                         hidden=[io.Hidden.dynprompt], inputs=[
                             io.Image.Input("images", lazy=True, extra_dict={"rawLink": True}), io.Int.Input("times", default=2)
                         ])  # fmt: skip

    @classmethod
    def execute(cls, images, times):
        graph, again = GraphBuilder(), cls.hidden.dynprompt.get_node(images[0])
        seed = again["inputs"]["seed"]
        copies = [graph.node(again["class_type"], **{**again["inputs"], "seed": seed + turn}) for turn in range(times)]
        for copy in copies:
            copy.set_override_display_id(images[0])
        return io.NodeOutput(copies[0].out(images[1]), copies[-1].out(images[1]), expand=graph.finalize())


class ForeignPaid(io.ComfyNode):
    """Would be paid for."""

    @classmethod
    def define_schema(cls):
        return io.Schema("ForeignPaid", category="foreign", inputs=[io.Image.Input("image")], outputs=[io.Float.Output()],
                         is_api_node=True)  # fmt: skip

    @classmethod
    def execute(cls, image):
        raise AssertionError("called")


class ForeignKeep:
    """Keeps what it is given, for the test to look at."""

    CATEGORY = "foreign"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "keep"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"value": ("NS_VERIFIER",)}}

    def keep(self, value):
        KEPT.append(value)
        return {}


NEW = [ForeignAsync, ForeignLists, ForeignExpand, ForeignTwice, ForeignLoop, ForeignPaid]
OLD = [
    ImageRewardLoader, ImageRewardScore, ForeignSplit, ForeignNumbers, ForeignSwitch, ForeignChoice, ForeignNumber, ForeignKeep,
]  # fmt: skip
NODE_CLASS_MAPPINGS = {cls.__name__: cls for cls in OLD} | {cls.GET_SCHEMA().node_id: cls for cls in NEW}
NODE_DISPLAY_NAME_MAPPINGS = {ImageRewardScore.__name__: "ImageReward Score"}
