"""The verifier that asks a model behind a chat-completions endpoint."""

from __future__ import annotations

import logging
import os
from collections.abc import Hashable

import comfy.model_management as mm
import folder_paths
from comfy_api.latest import io
from comfy_execution.utils import get_executing_context

from ....verifiers.api.access import Access, endpoint_of, read_access
from ....verifiers.api.client import Client
from ....verifiers.api.judge import ASKS, FIVE_ASPECTS, ApiJudge
from ..schema import inp, prompt_input, schema
from ..sockets import Verifier

SETTINGS = "noise_search.json"

log = logging.getLogger("noise-search")


class NSAPIJudge(io.ComfyNode):
    """Lets a vision-language model grade pictures, over HTTP."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSAPIJudge",
            display_name="API Judge (verifier)",
            category="noise search/verifiers",
            description="A verifier: a vision-language model behind an OpenAI-compatible endpoint grades each picture (Ollama,"
            " LM Studio, vLLM, llama.cpp server, hosted ones). Other machines than this one only if your own settings file"
            " allows them; keys are never in the workflow.",
            search_aliases=["VLM judge", "LLM grader", "Ollama", "OpenAI", "LM Studio", "vLLM", "GPT"],
            inputs=[
                inp(io.String, "base_url", default="http://127.0.0.1:11434/v1", tooltip="Address of the endpoint, with or"
                    " without /chat/completions. Ollama: http://127.0.0.1:11434/v1, LM Studio: port 1234, vLLM: 8000, llama.cpp:"
                    f" 8080. Other machines: only if listed in {SETTINGS} of ComfyUI's user folder; by https, or on your own"
                    " network without encryption if that file says so."),
                inp(io.String, "model", default="qwen2.5vl:7b", tooltip="Name of a model at the endpoint that sees pictures."
                    " It has to be there already; nothing is downloaded."),
                prompt_input(),
                inp(io.Combo, "ask", options=list(ASKS), default=FIVE_ASPECTS, tooltip="five aspects (the seed paper's): mean of"
                    " five grades, 0 to 10. check-list: share of the prompt's elements that are there, 0 to 1; best for long"
                    " prompts. compare finalists: five aspects, then the best (up to 4, within half a grade) two at a time, which"
                    " takes up to 12 more requests."),
                inp(io.Int, "max_pixels", default=589_824, min=1024, max=16_777_216, step=1024, advanced=True, tooltip="Larger"
                    " pictures are shrunk to so many pixels. Usual: 262144 (512x512) to 1048576; hosted ones charge by size."),
                inp(io.Float, "timeout", default=120.0, min=1.0, max=3600.0, step=1.0, advanced=True, tooltip="Seconds that one"
                    " request may take, loading the model included; with retries three times as long. Usual: 30 to 300."),
                inp(io.Int, "max_requests", default=200, min=0, max=100_000, tooltip="Most requests in one execution of the node"
                    " that uses the verifier, retries included; beyond it the verifier fails. One picture is one request. 0: no"
                    " limit. Usual: a bit above what the search will score."),
                inp(io.Int, "max_tokens", default=1000, min=16, max=100_000, advanced=True, tooltip="Longest answer, in tokens."
                    " Usual: 500 to 1000; models that think before they answer need 4000 or more."),
            ],
            outputs=[Verifier.Output("verifier", tooltip="Grades from 0 to 10, or with the check-list 0 to 1.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, base_url: str, model: str, prompt: str, ask: str, max_pixels: int, timeout: float, max_requests: int, max_tokens: int
    ) -> io.NodeOutput:
        endpoint = endpoint_of(base_url)
        settings().key_for(endpoint)  # what is not allowed is refused before the search, not in it
        if not endpoint.is_loopback and endpoint.scheme == "https":
            log.info("API judge: pictures and prompt will be sent to %s", endpoint.address)
        elif not endpoint.is_loopback:
            log.warning("API judge: pictures, prompt and key will be sent to %s without encryption", endpoint.address)
        client = Client(endpoint, settings, timeout, max_requests, mm.throw_exception_if_processing_interrupted, execution)
        return io.NodeOutput(ApiJudge(client, model, prompt, ask, max_pixels, max_tokens))


def settings() -> Access:
    """Read the user's settings file."""
    return read_access(os.path.join(folder_paths.get_user_directory(), SETTINGS))


def execution() -> Hashable:
    """Say which node of which queued workflow is being executed; None outside of ComfyUI's executor."""
    context = get_executing_context()
    return None if context is None else (context.prompt_id, context.node_id)


NODES: list[type[io.ComfyNode]] = [NSAPIJudge]
