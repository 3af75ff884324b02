"""Folders of vision-language models: what is refused, that nothing in them is run, and that nothing is fetched."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import folder_paths  # noqa: E402

from noise_search.nodes.definitions.verifiers.vlm import JUDGE, NODES  # noqa: E402
from noise_search.nodes.weights import vlm  # noqa: E402
from noise_search.nodes.weights.transformers import import_transformers  # noqa: E402
from noise_search.nodes.weights.vlm import load_vision_language  # noqa: E402


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_: object) -> None:
        pytest.fail("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)


def edit(folder: Path, name: str, **changes: object) -> None:
    settings = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**settings, **changes}))


def cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def other_size(folder: Path) -> None:
    edit(folder, "config.json", intermediate_size=64)


def more_layers(folder: Path) -> None:
    edit(folder, "config.json", num_hidden_layers=3)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    (folder / "evil.py").write_text("from pathlib import Path\nPath(__file__).with_name('was-run').touch()\nclass Config: pass\n")
    edit(folder, "config.json", model_type="evil", auto_map={"AutoConfig": "evil.Config"})


def thinking(folder: Path) -> None:
    template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    edit(folder, "chat_template.json", chat_template=template.replace("assistant\n", "assistant\n<think>\n"))


WRONG: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "model.safetensors").unlink(), "a folder without model.safetensors"),
    (cut, "weights that cannot be loaded"),
    (other_size, "weights that cannot be loaded"),
    (more_layers, "not all of them (missing: "),
    (pickled, "a folder without model.safetensors (weights in pickles are not read)"),
    (own_code, "models that bring code of their own are not run"),
    (lambda folder: (folder / "config.json").write_text("{"), "a folder whose config.json"),
    (lambda folder: edit(folder, "config.json", model_type="newest_vl"), "pip install -U transformers"),
    (lambda folder: edit(folder, "config.json", model_type="gpt2"), "a 'gpt2', which is no model of pictures and text"),
    (lambda folder: edit(folder, "config.json", quantization_config={"quant_method": "awq"}), "a quantized model"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), "without a usable tokenizer and image processor"),
    (lambda folder: (folder / "chat_template.json").unlink(), "a model without a chat template"),
    (
        lambda folder: edit(folder, "chat_template.json", chat_template="{{ nothing.of.it }}"),
        "whose chat template cannot be used",
    ),
    (thinking, "a model that thinks before it answers"),
]


@pytest.mark.parametrize(("spoil", "message"), WRONG)
def test_damaged_and_wrong_folders_are_refused(
    vlm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], message: str
) -> None:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "LLM", ([str(tmp_path)], set()))
    shutil.copytree(vlm_folder / "qwen2", tmp_path / "spoilt")
    spoil(tmp_path / "spoilt")
    with pytest.raises(ValueError, match="VLM Judge: input 'model_name' is 'spoilt'") as caught:
        load_vision_language(JUDGE, "spoilt")
    assert message in str(caught.value)
    assert "huggingface.co/Qwen" in str(caught.value)
    assert not (tmp_path / "spoilt" / "was-run").exists()


def test_folders_that_are_not_there_are_refused(vlm_folder: Path) -> None:
    with pytest.raises(ValueError, match="input 'model_name' is 'none'.*models/verifiers.*models/LLM"):
        load_vision_language(JUDGE, "none")


def test_a_template_kept_with_the_tokenizer_is_found(vlm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "LLM", ([str(tmp_path)], set()))
    folder = tmp_path / "org" / "moved"
    shutil.copytree(vlm_folder / "qwen2", folder)
    template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    (folder / "chat_template.json").unlink()
    edit(folder, "tokenizer_config.json", chat_template=template)
    asked = load_vision_language(JUDGE, "org/moved").conversation("Why?")
    assert asked == load_vision_language(JUDGE, "qwen2").conversation("Why?")


def test_a_transformers_that_is_missing_or_too_old_is_named(vlm_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="VLM Judge: needs the package transformers, 4.50 or newer.*pip install -U transformers"):
        import_transformers(JUDGE)


def test_what_others_registered_as_llm_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "LLM", (["/users/own"], {".gguf"}))
    vlm.register_folder("LLM", ours=False)
    assert folder_paths.folder_names_and_paths["LLM"] == (["/users/own", str(Path(folder_paths.models_dir, "LLM"))], {".gguf"})


@pytest.mark.parametrize("node", NODES)
def test_schema(node: type) -> None:
    schema = node.define_schema()
    assert schema.category == "noise search/verifiers"
    assert schema.display_name.endswith(" (verifier)")
    assert all(item.tooltip for item in [*schema.inputs, *schema.outputs])
    assert [output.io_type for output in schema.outputs] == ["NS_VERIFIER"]
