"""A workflow that names a file the user does not have: ComfyUI refuses it with our words, before anything is run."""

from __future__ import annotations

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

from whole_prompts import Refused, Runner, foreign, node  # noqa: E402

MISSING = "nobody-has-this.safetensors"
NODES = {
    "NSClipScore": ({"prompt": "a"}, "model_name", "clip_vision"),
    "NSPickScore": ({"prompt": "a"}, "model_name", "clip_vision"),
    "NSHPSv2": ({"prompt": "a"}, "model_name", "verifiers"),
    "NSSigLIPScore": ({"prompt": "a"}, "model_name", "verifiers"),
    "NSAestheticScore": ({"clip_name": MISSING}, "model_name", "verifiers"),
    "NSImageReward": ({"prompt": "a"}, "model_name", "verifiers"),
    "NSClassifierLogit": ({"class_name": "cat", "output": "log probability"}, "model_name", "verifiers"),
    "NSZeroShotClass": (
        {"class_name": "cat", "other_classes": "dog", "templates": "a {}", "output": "log probability"},
        "model_name", "clip_vision",
    ),
    "NSObjectCheck": ({"checks": "a cat", "threshold": 0.1}, "model_name", "verifiers"),
    "NSVLMJudge": ({"prompt": "a", "ask": "yes or no", "max_pixels": 200704}, "model_name", "verifiers"),
    "NSHPSv3": ({"prompt": "a", "caution": 0.0, "base_model": MISSING}, "model_name", "verifiers"),
    "NSUnifiedReward": ({"prompt": "a", "axis": "alignment", "max_pixels": 200704}, "model_name", "verifiers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NODES)
def test_input_value_folder_and_source_are_named(kind: str) -> None:
    foreign()
    inputs, name, folder = NODES[kind]
    prompt = {"1": node(kind, **inputs, **{name: MISSING}), "2": node("ForeignKeep", value=["1", 0])}
    with pytest.raises(Refused) as refused:
        Runner().run(prompt)
    said = str(refused.value)
    for part in (f"input '{name}' is '{MISSING}'", f"models/{folder}", "The usual one: "):
        assert part in said
    assert "Value not in list" not in said


def test_the_second_file_is_looked_for_too() -> None:
    from noise_search.nodes.definitions.verifiers.clip import NSAestheticScore
    from noise_search.nodes.weights.files import found

    assert found(lambda wanted, name: "/there", None, "x") is True
    assert found(lambda wanted, name: 1 / 0, None, None) is True  # connected: it is not known yet
    said = NSAestheticScore.validate_inputs(model_name=MISSING, clip_name=MISSING)
    assert "'model_name'" in said and "models/verifiers" in said
