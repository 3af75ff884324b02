"""The key of a set-up: everything that determines a candidate beside its recipe, and nothing that does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import comfyui_version
import torch
from comfy_execution.graph_utils import is_link
from torch import Tensor

from .fingerprints import fingerprints
from .graph import Graph
from .noise import pack

# Inputs of the search nodes that choose candidates, or what is done with them. The noise is named in recipes.
CHOICES = {
    "noise", "seed", "verifier", "budget", "keep", "method", "limits", "held_out", "on_cancel", "on_verifier_error",
    "batching", "choose", "resume",
}  # fmt: skip

# What objects hold that other nodes computed: hints of controls, CLIP_VISION_OUTPUTs, and adapters of weights, LoRAs among them;
# a verifier's prompt and reference, its parts' too, and what the nodes of a `SubGraph` were given.
HELD = ("cond_hint_original", "extra_concat_orig", "previous_controlnet", "image_embeds", "last_hidden_state",
        "penultimate_hidden_states", "weights", "prompt", "reference", "parts", "assistant", "run", "given")  # fmt: skip
VERSION = "score_version"  # of a verifier: what its scores depend on beside, where they are not what they were
SAMPLE = 64  # numbers of each tensor that is patched into a model


class Unreadable(ValueError):
    """The prompt does not say how something was made."""


def setup_key(prompt: Mapping[str, Any], node: str, graph: Graph, batching: str) -> str:
    """Return the key of what a search node works on, 32 hex digits.

    It comes from the nodes before the search node (their types, settings and links, whatever their ids and titles are,
    and what the files they name hold), and from what reached it.

    Args:
        prompt: the whole prompt in API form.
        node: the search node's id in it.
        graph: what reached the node, for one row of the latent batch.
        batching: its input; only "on" may change candidates.

    Raises:
        Unreadable: the prompt does not hold the node, or a node before it.
    """
    patcher = graph.guider.model_patcher
    made = Signatures(prompt)
    said = {
        "node": made.inputs(node, CHOICES),
        "values": _digest([graph.sigmas, graph.latent.get("samples"), graph.latent.get("noise_mask")]),
        "conditioning": _digest(getattr(graph.guider, "original_conds", None)),
        "row of a batch": graph.row_of_batch,
        "model": [type(patcher.model).__qualname__, str(patcher.model_dtype()), patcher.load_device.type],
        "patches": _digest(getattr(patcher, "patches", None), SAMPLE),
        "versions": [comfyui_version.__version__, torch.__version__],
        "batching": batching == "on",
    }
    return _hash(said)


def verifier_signature(prompt: Mapping[str, Any], node: str, name: str, reached: Sequence[Any] = ()) -> str:
    """Return what determines the scores of the verifier that is connected to a node's input `name`, 32 hex digits.

    Args:
        prompt: the whole prompt in API form.
        node: the search node's id in it.
        name: of the input.
        reached: what is connected there, a cascade as its two verifiers.
    """
    inputs = _node(prompt, node).get("inputs", {})
    if not is_link(inputs.get(name)):
        raise Unreadable(f"nothing is connected to '{name}'")
    return _hash([Signatures(prompt).of(inputs[name]), _digest(reached)])


def noise_hash(graph: Graph) -> str:
    """Return a hash of the connected noise, 32 hex digits."""
    return _digest(pack(graph.given))


class Signatures:
    """How the values in a prompt are made: by what nodes, with what settings, from what files."""

    def __init__(self, prompt: Mapping[str, Any]) -> None:
        """Hold the prompt."""
        self._prompt = prompt
        self._known: dict[str, str | None] = {}  # None: of a node whose signature is being made

    def inputs(self, node: str, without: set[str] = frozenset()) -> dict[str, Any]:
        """Return the signatures of a node's inputs."""
        found = _node(self._prompt, node)
        named = {name: self.of(value) for name, value in found.get("inputs", {}).items() if name not in without}
        return {"class": found.get("class_type"), "inputs": named}

    def of(self, value: Any) -> Any:
        """Return the signature of a setting or of a link, as JSON values."""
        if is_link(value):
            return {"node": self._of_node(value[0]), "output": int(value[1])}
        if isinstance(value, str):
            files = fingerprints(value)
            return {"text": value, "files": files} if files else value
        if isinstance(value, Mapping):
            return {str(name): self.of(inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(inner) for inner in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value  # the page may write 8 for 8.0

    def _of_node(self, node: str) -> str:
        if node not in self._known:
            self._known[node] = None
            self._known[node] = _hash(self.inputs(node))
        if self._known[node] is None:
            raise Unreadable(f"node {node} is made from itself")
        return self._known[node]


def _node(prompt: Mapping[str, Any], node: str) -> Mapping[str, Any]:
    if node not in prompt:
        raise Unreadable(f"node {node} is not in the prompt")
    return prompt[node]


def _digest(value: Any, sample: int = 0) -> str:
    """Return a hash of the numbers and texts in a value; what else objects of other kinds are is told by the nodes before.

    Args:
        value: any.
        sample: at most so many numbers of each tensor count, evenly spread from the first to the last; 0 for all.
    """
    digest = hashlib.sha256()
    _feed(digest, value, sample)
    return digest.hexdigest()[:32]


def _feed(digest: Any, value: Any, sample: int) -> None:
    if isinstance(value, Tensor) and not value.is_nested:
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(_bytes_of(value, sample))
    elif getattr(value, "is_nested", False):
        _feed(digest, list(value.unbind()), sample)
    elif isinstance(value, Mapping):
        for name in sorted(value, key=str):
            digest.update(f"{name}:".encode())
            _feed(digest, value[name], sample)
    elif isinstance(value, (list, tuple)):
        digest.update(f"[{len(value)}".encode())
        for inner in value:
            _feed(digest, inner, sample)
    elif isinstance(value, (bool, int, float, str, type(None))):
        digest.update(f"{value!r};".encode())
    else:
        digest.update(f"<{type(value).__qualname__}>".encode())
        held = {name: getattr(value, name) for name in HELD if hasattr(value, name)}
        version = getattr(value, VERSION, ())
        _feed(digest, {**held, VERSION: version} if version else held, sample)


def _bytes_of(tensor: Tensor, sample: int) -> Any:
    try:
        flat = tensor.detach().flatten()
        if sample and flat.numel() > sample:
            flat = flat[torch.linspace(0, flat.numel() - 1, sample, dtype=torch.float64).long().to(flat.device)]
        return flat.to("cpu").contiguous().view(torch.uint8).numpy()
    except (RuntimeError, TypeError, NotImplementedError) as error:  # of a class that another pack made
        if sample:  # the files that the patch was made of are in the key
            return b""
        raise Unreadable(f"a value of type {type(tensor).__qualname__} cannot be read: {error}") from error


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
