"""The human verifier node: pictures are shown, you pick."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ....verifiers.human.human import LARGEST_SET, LEAST_SET, HumanVerifier
from ....verifiers.human.preference_model import LEAST_CHOICES
from ....verifiers.human.questions import BY_MODEL, WHEN_ABSENT
from ...server.questions import PageAsker
from ..schema import inp, schema
from ..sockets import Verifier


class NSHumanVerifier(io.ComfyNode):
    """Lets a person choose."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSHumanVerifier",
            display_name="Human Verifier",
            category="noise search/verifiers",
            description="You are the verifier: the search pauses with a few pictures side by side, you pick the best, rank them,"
            " or call them all bad, and it goes on from there. A model of your choices can take over when you tire.",
            search_aliases=["human in the loop", "pick by hand", "interactive", "image chooser", "preference", "Bradley-Terry"],
            inputs=[
                inp(
                    io.Int, "set_size", default=4, min=LEAST_SET, max=LARGEST_SET,
                    tooltip="How many pictures you see side by side at most, the best so far among them. Usual: 2 to 6. With"
                    " Zero-Order Search set its 'neighbors' to one less: one question for each round.",
                ),
                inp(
                    io.Float, "timeout", default=0.0, min=0.0, max=1e6, step=1.0,
                    tooltip="Seconds you have for each question; then 'when_absent' says what happens. 0: the search waits for"
                    " as long as it takes. Time it waits for you never counts against the search's time limit.",
                ),
                inp(
                    io.Combo, "when_absent", options=list(WHEN_ABSENT), default=BY_MODEL,
                    tooltip="What happens when a question times out, when the page that queued the search is closed, or when"
                    " none did. model of your choices: the model answers that question, and you are asked the next;"
                    f" before you made {LEAST_CHOICES} picks the 'assistant' answers; with neither, as the next. stop with the"
                    " best: the search ends, and what was not judged does not win. error: the workflow stops with an error.",
                ),
                inp(
                    Verifier, "assistant", optional=True,
                    tooltip="Another verifier, or an ensemble. It ranks pictures in your place while the model of your choices"
                    " has too few of them, and its scores help that model. While you answer, it decides nothing.",
                ),
                inp(
                    io.ClipVision, "clip_vision", optional=True,
                    tooltip="Image encoder from Load CLIP Vision, which lets the model of your choices see what a picture shows."
                    " Without one it goes by colors, layout, sharpness and contrast.",
                ),
            ],
            outputs=[Verifier.Output("verifier", tooltip="Strengths in log odds; they change with every choice you make.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, set_size: int, timeout: float, when_absent: str, assistant: Any = None, clip_vision: Any = None
    ) -> io.NodeOutput:
        return io.NodeOutput(HumanVerifier(PageAsker(), set_size, timeout, when_absent, assistant, clip_vision))


NODES: list[type[io.ComfyNode]] = [NSHumanVerifier]
