"""Verifier nodes that ask a vision-language model."""

from __future__ import annotations

from comfy_api.latest import io

from ....verifiers.vlm.hps_v3 import HPSv3
from ....verifiers.vlm.unified_reward import AXIS, UnifiedReward
from ....verifiers.vlm.unified_reward import MEAN as MEAN_OF_AXES
from ....verifiers.vlm.vlm_judge import ASK, COMBINE, MEAN, YES_NO, VLMJudge
from ...weights.files import FOLDER, Wanted, file_path, files, found, repositories, repository_path
from ...weights.vlm import FOLDERS, load_hps_v3, load_vision_language
from ..schema import inp, prompt_input, schema
from ..sockets import Verifier

JUDGE = Wanted(
    "VLM Judge", "model_name", FOLDERS, "all files of https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct, in a folder of its own"
)
UNIFIED = Wanted(
    "UnifiedReward", "model_name", FOLDERS,
    "all files of https://huggingface.co/CodeGoat24/UnifiedReward-2.0-qwen3vl-2b, in a folder of its own",
)  # fmt: skip
HPS = Wanted("HPSv3", "model_name", (FOLDER,), "HPSv3.safetensors of https://huggingface.co/MizzenAI/HPSv3")
HPS_BASE = Wanted(
    "HPSv3", "base_model", FOLDERS,
    "the .json and .txt files of https://huggingface.co/Qwen/Qwen2-VL-7B-Instruct, in a folder of its own",
)  # fmt: skip


def _max_pixels(default: int) -> io.Input:
    return inp(
        io.Int, "max_pixels", default=default, min=56 * 56, max=4096 * 4096, step=1024,
        tooltip="Larger pictures are shrunk to this area, in pixels. Usual: 262144 (512 x 512) to 1048576 (1024 x 1024);"
        " with Qwen's models every 784 pixels are one token, so time and memory grow with it.",
    )  # fmt: skip


class NSVLMJudge(io.ComfyNode):
    """Asks a vision-language model about each picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSVLMJudge",
            display_name="VLM Judge (verifier)",
            category="noise search/verifiers",
            description="A verifier: asks a vision-language model on this machine whether the picture shows the prompt"
            " (VQAScore), for grades in five aspects, or about a check-list of elements. Reads probabilities; writes no text.",
            search_aliases=["VQAScore", "Qwen-VL", "SmolVLM", "LLM grader", "prompt alignment", "checklist"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=repositories(JUDGE),
                    tooltip="A folder in models/verifiers or models/LLM with an instruct model of pictures and text:"
                    f" Qwen2.5-VL, Qwen3-VL, SmolVLM. For instance {JUDGE.source}.",
                ),
                prompt_input(more=". Plain text, of any usual length; weights like (word:1.2) are read as they stand."),
                inp(
                    io.Combo, "ask", options=list(ASK), default=YES_NO,
                    tooltip="yes or no: probability that it shows the prompt, 0 to 1 (VQAScore; 1 pass). aspects: mean grade"
                    " of prompt accuracy, originality, quality, consistency and mood, 0 to 10 (5 passes). check-list:"
                    " probability of each element, 0 to 1 (1 pass each); steadier for long prompts.",
                ),
                inp(
                    io.String, "elements", multiline=True, default="", optional=True,
                    tooltip="For the check-list: one element a line, such as 'two cats' or 'a cat left of a dog'. Empty: the"
                    " prompt is split at commas, full stops and 'and'. Usual: 3 to 8 elements.",
                ),
                inp(
                    io.Combo, "combine", options=list(COMBINE), default=MEAN, optional=True,
                    tooltip="For the check-list: mean counts elements, product asks for all of them at once and punishes the"
                    " worst. Usual: mean.",
                ),
                _max_pixels(512 * 512),
            ],
            outputs=[Verifier.Output("verifier", tooltip="To a search or Score Images. 0 to 1, or 0 to 10.")],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return found(repository_path, JUDGE, model_name)

    @classmethod
    def execute(
        cls, model_name: str, prompt: str, ask: str, max_pixels: int, elements: str = "", combine: str = MEAN
    ) -> io.NodeOutput:
        lines = tuple(line.strip() for line in elements.splitlines() if line.strip())
        model = load_vision_language(JUDGE, model_name)
        return io.NodeOutput(VLMJudge(model, prompt, ask, lines, combine, max_pixels))


class NSHPSv3(io.ComfyNode):
    """Scores by HPSv3's model of human preference."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSHPSv3",
            display_name="HPSv3 (verifier)",
            category="noise search/verifiers",
            description="A verifier: HPSv3 (Ma et al. 2025, arXiv 2508.03789), a 7B model of which picture people prefer for a"
            " prompt. Needs about 17 GB in bfloat16.",
            search_aliases=["human preference score", "preference model", "MizzenAI", "reward model"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=files(HPS),
                    tooltip=f"The weights, in models/verifiers: {HPS.source} (about 17 GB).",
                ),
                inp(
                    io.Combo, "base_model", options=repositories(HPS_BASE),
                    tooltip="A folder in models/verifiers or models/LLM with the settings of Qwen2-VL-7B-Instruct:"
                    f" {HPS_BASE.source}. Its own weights are not read and need not be there.",
                ),
                prompt_input(more="; long ones are read whole.", image="was made from"),
                inp(
                    io.Float, "caution", default=0.0, min=-10.0, max=10.0, step=0.1,
                    tooltip="How many standard deviations, as the model estimates them, are taken off its mean. 0 (the"
                    " published score) is usual; 0.5 to 1 avoids pictures that it is unsure about.",
                ),
            ],
            outputs=[
                Verifier.Output("verifier", tooltip="To a search or Score Images. Good generators average 8 to 11.")
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str, base_model: str) -> bool | str:
        return said if (said := found(file_path, HPS, model_name)) is not True else found(repository_path, HPS_BASE, base_model)

    @classmethod
    def execute(cls, model_name: str, base_model: str, prompt: str, caution: float) -> io.NodeOutput:
        return io.NodeOutput(HPSv3(load_hps_v3(HPS, model_name, HPS_BASE, base_model), prompt, caution))


class NSUnifiedReward(io.ComfyNode):
    """Scores by UnifiedReward 2.0's grades."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSUnifiedReward",
            display_name="UnifiedReward (verifier)",
            category="noise search/verifiers",
            description="A verifier: UnifiedReward 2.0 (Wang et al. 2025, arXiv 2503.05236), a vision-language model trained to"
            " grade alignment, coherence and style, 1 to 5. Takes expected values of the grades instead of written ones.",
            search_aliases=["UnifiedReward 2.0", "reward model", "alignment", "coherence", "style"],
            inputs=[
                inp(
                    io.Combo, "model_name", options=repositories(UNIFIED),
                    tooltip="A folder in models/verifiers or models/LLM with a UnifiedReward 2.0 model (2B to 8B). For instance"
                    f" {UNIFIED.source}.",
                ),
                prompt_input(image="was made from"),
                inp(
                    io.Combo, "axis", options=list(AXIS), default=MEAN_OF_AXES,
                    tooltip="Which grade is the score: the mean of all three (usual), or one of them, for instance to weigh them"
                    " in an ensemble of three such nodes. alignment is the fastest (a third of the time).",
                ),
                _max_pixels(1024 * 1024),
            ],
            outputs=[
                Verifier.Output("verifier", tooltip="To a search or Score Images. 1 to 5, higher is better.")
            ],
        )  # fmt: skip

    @classmethod
    def validate_inputs(cls, model_name: str) -> bool | str:
        return found(repository_path, UNIFIED, model_name)

    @classmethod
    def execute(cls, model_name: str, prompt: str, axis: str, max_pixels: int) -> io.NodeOutput:
        return io.NodeOutput(UnifiedReward(load_vision_language(UNIFIED, model_name), prompt, axis, max_pixels))


NODES: list[type[io.ComfyNode]] = [NSVLMJudge, NSHPSv3, NSUnifiedReward]
