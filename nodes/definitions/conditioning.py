"""The node that varies a conditioning as a recipe says."""

from __future__ import annotations

from comfy_api.latest import io

from ...search.noise.recipe import recipes_from_json
from ..adapter.conditioning import embeddings, jittered_rows
from .schema import inp, schema

CATEGORY = "noise search"


class NSJitterConditioning(io.ComfyNode):
    """A winner's conditioning."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSJitterConditioning",
            display_name="Jitter Conditioning",
            category=CATEGORY,
            description="Varies a conditioning as a recipe says, so that stock nodes render the winner of a search with "
            "conditioning jitter: connect it to the guider, and the search's noise output to the sampler.",
            search_aliases=["prompt variation", "conditioning noise", "recipe"],
            inputs=[
                inp(io.Conditioning, "conditioning", tooltip="The positive conditioning of the search, whole: what went into "
                    "its guider."),
                inp(io.String, "recipe", multiline=True, tooltip="The recipe output of a search, connected or pasted. One "
                    "without jitter leaves the conditioning as it is. A list of recipes goes with a latent batch of as many "
                    "rows."),
            ],
            outputs=[io.Conditioning.Output("conditioning", tooltip="The winner's conditioning.")],
        )  # fmt: skip

    @classmethod
    def execute(cls, conditioning: list, recipe: str) -> io.NodeOutput:
        jitters = [one.jitter for one in recipes_from_json(recipe)]
        if not any(jitters):
            return io.NodeOutput(conditioning)
        entries = [extra if tensor is None else {**extra, "cross_attn": tensor} for tensor, extra in conditioning]
        if not any(map(embeddings, entries)):
            raise ValueError("conditioning: it holds no text embedding, so that there is nothing to jitter")
        rows = [jittered_rows(entry, place, jitters) for place, entry in enumerate(entries)]
        out = [
            [None if tensor is None else row["cross_attn"], {name: value for name, value in row.items() if name in extra}]
            for (tensor, extra), row in zip(conditioning, rows, strict=True)
        ]
        return io.NodeOutput(out)


NODES = [NSJitterConditioning]
