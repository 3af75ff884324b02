"""The key of a set-up: everything that determines a candidate beside its recipe, and nothing that does not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

import comfyui_version
import torch
from comfy_execution.graph_utils import is_link
from torch import Tensor

from ..adapter.graph import SamplingInputs
from ..adapter.noise import pack
from .fingerprints import fingerprints

# Inputs of the search nodes that choose candidates, or what is done with them. The noise is named in recipes.
CHOICES = {
    "noise", "seed", "verifier", "budget", "keep", "method", "limits", "held_out", "on_cancel", "on_verifier_error",
    "batching", "choose", "resume", "rounds",
}  # fmt: skip

# What objects hold that other nodes computed: hints of controls, CLIP_VISION_OUTPUTs, and adapters of weights, LoRAs among them;
# a verifier's prompt and reference, its parts' too, and what the nodes of a `SubGraph` were given.
HELD = ("cond_hint_original", "extra_concat_orig", "previous_controlnet", "image_embeds", "last_hidden_state",
        "penultimate_hidden_states", "weights", "prompt", "reference", "parts", "assistant", "run", "given")  # fmt: skip
VERSION = "score_version"  # of a verifier: what its scores depend on beside, where they are not what they were
# Inputs that had another name once, by their nodes: keys hold the first name, so that they stay what they were.
FIRST_NAMES = {("NSVerifierCascade", "expensive"): "dear"}
SAMPLE = 64  # numbers of each tensor that is patched into a model


PLAIN = (bool, int, float, str, type(None))  # settings


class Unreadable(ValueError):
    """The prompt does not say how something was made."""


class Made(NamedTuple):
    """A node, as far as what it makes depends on its inputs but for some."""

    node: str
    without: frozenset[str] = frozenset()


def setup_key(prompt: Mapping[str, Any], node: str, graph: SamplingInputs, batching: str) -> str:
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
    value = _node(prompt, node).get("inputs", {}).get(name)
    if isinstance(value, PLAIN):
        raise Unreadable(f"nothing is connected to '{name}'")
    return _hash([Signatures(prompt, CHOICES - {"verifier", "held_out"}).input(node, name), _digest(reached)])


def noise_hash(graph: SamplingInputs) -> str:
    """Return a hash of the connected noise, 32 hex digits."""
    return _digest(pack(graph.given))


class Signatures:
    """How the values in a prompt are made: by what nodes, with what settings, from what files.

    Nodes that another node built while it ran (in a loop, say) hold links and settings as all do, and objects: of those it is
    known what node handed them over, and how that was made.
    """

    def __init__(self, prompt: Mapping[str, Any], choices: Set[str] = frozenset(CHOICES)) -> None:
        """Hold the prompt; `choices` are inputs that do not count where a node hands them on to one that it builds."""
        self._prompt, self._choices = prompt, choices
        self._known: dict[Made, str] = {}

    def inputs(self, node: str, without: Set[str] = frozenset()) -> dict[str, Any]:
        """Return the signatures of a node's inputs."""
        made = Made(node, frozenset(without))
        self._find(self._needs(made))
        return self._said(made)

    def input(self, node: str, name: str) -> Any:
        """Return the signature of what a node gets at an input, as JSON values."""
        found = self.inputs(node, _node(self._prompt, node).get("inputs", {}).keys() - {name})["inputs"]
        return next(iter(found.values()), None)

    def _said(self, made: Made) -> dict[str, Any]:
        kind = _node(self._prompt, made.node).get("class_type")
        inputs = {FIRST_NAMES.get((kind, name), name): self._of(value, made.node) for name, value in self._counted(made)}
        return {"class": kind, "inputs": inputs}

    def _counted(self, made: Made) -> list[tuple[str, Any]]:
        inputs = _node(self._prompt, made.node).get("inputs", {})
        return [(name, value) for name, value in inputs.items() if name not in made.without]

    def _of(self, value: Any, node: str) -> Any:
        """Return the signature of a setting, a link or an object at an input of a node, as JSON values."""
        if is_link(value):
            return {"node": self._known[Made(value[0])], "output": int(value[1])}
        if isinstance(value, str):
            files = fingerprints(value)
            return {"text": value, "files": files} if files else value
        if isinstance(value, Mapping):
            return {str(name): self._of(inner, node) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._of(inner, node) for inner in value]
        if isinstance(value, Tensor):
            return {"tensor": _digest(value)}
        if not isinstance(value, PLAIN):
            builder = self._builder(node)
            place = node.removeprefix(builder.node)
            return {"given by": self._known[builder], "to": place, "object": type(value).__qualname__, "holds": _digest(value)}
        return int(value) if isinstance(value, float) and value.is_integer() else value  # the page may write 8 for 8.0

    def _find(self, wanted: list[Made]) -> None:
        """Make signatures of nodes, and first of all before them: without recursion, since loops make long chains."""
        left, begun = list(wanted), set()
        while left:
            made = left[-1]
            needed = [] if made in self._known else [one for one in self._needs(made) if one not in self._known]
            if needed and made in begun:
                raise Unreadable(f"node {made.node} is made from itself")
            if needed:
                begun.add(made)
                left += needed
                continue
            left.pop()
            begun.discard(made)
            if made not in self._known:
                self._known[made] = _hash(self._said(made))

    def _needs(self, made: Made) -> list[Made]:
        """Return the nodes whose signatures a node's needs."""
        found: dict[Made, None] = {}
        values = [value for _, value in self._counted(made)]
        while values:
            value = values.pop()
            if is_link(value):
                found[Made(value[0])] = None
            elif isinstance(value, Mapping):
                values += value.values()
            elif isinstance(value, (list, tuple)):
                values += value
            elif not isinstance(value, (*PLAIN, Tensor)):
                found[self._builder(made.node)] = None
        return list(found)

    def _builder(self, node: str) -> Made:
        """Return the node that built a node and gave it objects, without what it only handed on of the user's choices."""
        builder = getattr(self._prompt, "builder", _built_by_nobody)(node)
        if builder is None:
            raise Unreadable(f"node {node} holds a value that no node gave it")
        own, its = (_node(self._prompt, one).get("inputs", {}) for one in (node, builder))
        shared = self._choices & own.keys() & its.keys()
        return Made(builder, frozenset(name for name in shared if _handed_on(its[name], own[name])))


def _built_by_nobody(node: str) -> None:
    return None


def _handed_on(value: Any, inner: Any) -> bool:
    """Whether an input of a node that built another looks like what became the other's input of that name."""
    plain = isinstance(inner, PLAIN)
    return inner == value if plain else not isinstance(value, PLAIN)


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
