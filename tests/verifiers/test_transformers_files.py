"""What a Hugging Face folder may ask for: layers of transformers' own, and nothing from elsewhere."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from classifiers import make_classifier
from safetensors.torch import save_file

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

from noise_search.nodes.definitions.verifiers.classes import CLASSIFIER  # noqa: E402
from noise_search.nodes.definitions.verifiers.clip import SIGLIP  # noqa: E402
from noise_search.nodes.definitions.verifiers.vlm import JUDGE, UNIFIED  # noqa: E402
from noise_search.nodes.weights.classifier import load_classifier  # noqa: E402
from noise_search.nodes.weights.detector import load_detector  # noqa: E402
from noise_search.nodes.weights.siglip import load_siglip  # noqa: E402
from noise_search.nodes.weights.vlm import load_vision_language  # noqa: E402

LOADERS = [
    lambda: load_classifier(CLASSIFIER, "one"), lambda: load_siglip(SIGLIP, "one"), lambda: load_detector("one"),
    lambda: load_vision_language(JUDGE, "one"), lambda: load_vision_language(UNIFIED, "one"),
]  # fmt: skip
TIMM = {"model_type": "timm_wrapper", "architecture": "resnet18", "model_args": {"checkpoint_path": "evil.bin"}}
PIXELS = {"image_processor_type": "ViTImageProcessor", "size": 8, "resample": 2, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


def edit(folder: Path, **changes: Any) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    ("config", "says"),
    [
        (TIMM, "timm"),
        ({"model_type": "llava", "vision_config": TIMM}, "timm"),
        (
            {"model_type": "grounding-dino", "backbone": "someone/backbone"},
            "names a backbone to be fetched",
        ),
        ({"model_type": "vit", "parts": [{"use_timm_backbone": True}]}, "names a backbone to be fetched"),
        ({"model_type": "vit", "quantization_config": {"quant_method": "fp8"}}, "a quantized model"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}, "code of their own are not run"),
        ({"model_type": {}}, "config.json transformers .* cannot use"),
        (["vit"], "config.json holds no settings, but a list"),
    ],
)
def test_what_asks_for_more_is_refused(models: Path, monkeypatch: Any, load: Any, config: Any, says: str) -> None:
    folder = models / "one"
    folder.mkdir()
    monkeypatch.chdir(folder)
    save_file({"a": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    torch.save({"a": Evil()}, folder / "evil.bin")
    (folder / "own.py").write_text("from pathlib import Path\nPath('evil-was-here').touch()\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f": input 'model_name' is 'one', .*{says}.*The usual one: .*huggingface.co"):
        load()
    assert not (folder / "evil-was-here").exists()


class Evil:
    def __reduce__(self):
        return (Path("evil-was-here").touch, ())


def test_settings_nested_without_end_are_refused(models: Path) -> None:
    make_classifier(models / "one")
    (models / "one" / "config.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match="input 'model_name' is 'one', a folder whose config.json cannot be read"):
        load_classifier(CLASSIFIER, "one")


def test_adapters_are_refused(models: Path) -> None:
    make_classifier(models / "one")
    (models / "one" / "adapter_config.json").write_text('{"base_model_name_or_path": "/"}')
    with pytest.raises(ValueError, match="input 'model_name' is 'one', a folder with adapter_config.json"):
        load_classifier(CLASSIFIER, "one")


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_a_kernel_from_the_hub_is_not_fetched(models: Path, key: str) -> None:
    make_classifier(models / "one")
    edit(models / "one", **{key: "someone/kernel"})
    assert load_classifier(CLASSIFIER, "one").module.config._attn_implementation in ("sdpa", "eager")


def test_a_folder_behind_a_link_is_found(models: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = tmp_path_factory.mktemp("elsewhere")
    make_classifier(kept / "one")
    (models / "linked").symlink_to(kept, target_is_directory=True)
    assert load_classifier(CLASSIFIER, "linked/one").labels[5] == "espresso"
