"""The search nodes on toys with a prompt around them, so that they keep journals; those lie in a folder of the test.

with journals(tmp_path, monkeypatch): ...                      # in a fixture
found = remembered(parts("eps"), 3, budget=4, prompt=...)      # NSSearchSamplerAdvanced as node "search" of a prompt
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from searching import Found, found

from noise_search.nodes.definitions.search import NSSearchSamplerAdvanced
from toys import ToyVerifier, run_node

NODE = "search"


def keep_journals(folder: Path, monkeypatch: Any, room: str = "64") -> Path:
    """Let journals lie under a folder, and return theirs."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "user_directory", str(folder))
    monkeypatch.setenv("NOISE_SEARCH_JOURNAL_MB", room)
    return folder / "__noise_search"


def prompt_for(setting: str = "a toy", verifier: str = "a verifier", **inputs: Any) -> dict[str, Any]:
    """A prompt around the search node: what its model and its verifier are made of is told by one setting each."""
    return {
        "model": {"class_type": "Toy", "inputs": {"setting": setting}},
        "verifier": {"class_type": "ToyVerifier", "inputs": {"setting": verifier}},
        NODE: {
            "class_type": "NSSearchSamplerAdvanced",
            "inputs": {"guider": ["model", 0], "verifier": ["verifier", 0], "held_out": ["verifier", 1], **inputs},
        },
    }


def remembered(graph: dict[str, Any], noise: Any = 0, prompt: dict[str, Any] | None = None, **options: Any) -> Found:
    """Run NSSearchSamplerAdvanced on the parts of a graph, inside a prompt; `noise` is a seed or a NOISE."""
    if isinstance(noise, int):
        (noise,) = run_node("RandomNoise", noise_seed=noise)

    class WithPrompt(NSSearchSamplerAdvanced):
        hidden = SimpleNamespace(unique_id=NODE, prompt=prompt or prompt_for(), extra_pnginfo=None)

    return found(run_node(WithPrompt, noise=noise, **graph, **{"verifier": ToyVerifier(), "budget": 4, "keep": 1, **options}))


def told(report: dict[str, Any]) -> dict[str, Any]:
    """What two searches must tell alike, however much one of them recalled."""
    spent = ("seconds", "check_calls", "recalled", "verifier_calls", "decodes", "batch")
    out = {name: value for name, value in report.items() if name not in spent}
    out["rounds"] = [{name: value for name, value in told.items() if name != "seconds"} for told in report["rounds"]]
    return out
