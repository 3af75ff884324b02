"""SigLIP score against transformers, on a tiny repository, and the repositories it refuses."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402

from noise_search.nodes.definitions.verifiers.clip import NSSigLIPScore  # noqa: E402

SMALL = load_file(Path(__file__).parent / "fixtures" / "photos.safetensors")["clip"].float() / 255
SIGLIP_PROMPTS = ["a cup of coffee on a wooden table, and a cat on a table", "cat", "An ASTRONAUT"]


@pytest.mark.parametrize("prompt", SIGLIP_PROMPTS)
def test_siglip_equals_transformers(siglip: SimpleNamespace, prompt: str) -> None:
    ids = siglip.tokenizer([prompt.lower()], padding="max_length", truncation=True, max_length=8, return_tensors="pt").input_ids
    with torch.no_grad():
        out = siglip.model(input_ids=ids, pixel_values=((SMALL - 0.5) / 0.5).movedim(-1, 1))
    (verifier,) = run_node(NSSigLIPScore, model_name="siglip", prompt=prompt)
    torch.testing.assert_close(verifier.score(SMALL), out.logits_per_image[:, 0], rtol=0, atol=1e-4)
    assert out.logits_per_image.std() > 0.05


def test_siglip_reads_the_prompt(siglip: SimpleNamespace) -> None:
    scores = [run_node(NSSigLIPScore, model_name="siglip", prompt=prompt)[0].score(SMALL[:1]) for prompt in SIGLIP_PROMPTS]
    assert torch.cat(scores).unique().numel() == len(SIGLIP_PROMPTS)


def first_generation(folder: Path) -> None:
    """Put a sentencepiece tokenizer, as SigLIP's first generation has, in the place of another."""
    import sentencepiece

    for file in folder.glob("*token*"):
        file.unlink()
    (folder / "text").write_text("a cup of coffee on a wooden table\nan astronaut and a cat\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "spiece"), vocab_size=40, hard_vocab_limit=False,
        bos_id=-1, eos_id=1, pad_id=0, unk_id=2, minloglevel=9,
    )  # fmt: skip
    settings = {"tokenizer_class": "SiglipTokenizer", "pad_token": "</s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_siglip_with_the_tokenizer_of_the_first_generation(siglip: SimpleNamespace) -> None:
    pytest.importorskip("google.protobuf", reason="transformers reads sentencepiece models with protobuf")
    from transformers import SiglipTokenizer

    first_generation(siglip.folder)
    tokenizer = SiglipTokenizer.from_pretrained(str(siglip.folder))
    sd, words = load_file(siglip.folder / "model.safetensors"), len(tokenizer)
    key = "text_model.embeddings.token_embedding.weight"
    table = torch.randn(words, 64, generator=torch.Generator().manual_seed(0))
    save_file(sd | {key: table}, siglip.folder / "model.safetensors", {"format": "pt"})
    change("config.json", text_config=siglip.model.config.text_config.to_dict() | {"vocab_size": words})(siglip.folder)
    model = copy.deepcopy(siglip.model)
    model.text_model.embeddings.token_embedding.weight = nn.Parameter(table, requires_grad=False)
    for prompt in ("A cup, of coffee!", "an astronaut and a cat on a table, and a cup of coffee"):
        (verifier,) = run_node(NSSigLIPScore, model_name="siglip", prompt=prompt)
        ids = tokenizer([prompt], padding="max_length", truncation=True, max_length=8, return_tensors="pt").input_ids
        with torch.no_grad():
            expected = model(input_ids=ids, pixel_values=((SMALL - 0.5) / 0.5).movedim(-1, 1)).logits_per_image[:, 0]
        torch.testing.assert_close(verifier.score(SMALL), expected, rtol=0, atol=1e-4)


def test_siglip_of_the_first_generation_names_the_package_it_needs(siglip: SimpleNamespace, monkeypatch: Any) -> None:
    from transformers import AutoTokenizer

    def lacking(*args: Any, **kwargs: Any) -> None:
        raise ImportError("\nSiglipTokenizer requires the protobuf library but it was not found")

    first_generation(siglip.folder)
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lacking)
    with pytest.raises(ValueError, match="^SigLIP Score: .*'siglip', a SigLIP of the first generation.*pip install protobuf"):
        run_node(NSSigLIPScore, model_name="siglip", prompt="cat")


def test_siglip_nodes_that_name_one_folder_share_its_weights_and_show_them(siglip: SimpleNamespace) -> None:
    first, second = (run_node(NSSigLIPScore, model_name="siglip", prompt=prompt)[0] for prompt in ("cat", "a cup"))
    assert first.siglip is second.siglip
    mm.unload_all_models()
    first.score(SMALL)
    assert first.get_models() == [model.model for model in mm.current_loaded_models]


class Evil:
    def __reduce__(self):
        return (Path("evil-was-here").touch, ())


def damage_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])


def drop_weights(folder: Path) -> None:
    sd = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in sd.items() if "layers.1.mlp" not in k}, folder / "model.safetensors", {"format": "pt"})


def bend_weights(folder: Path) -> None:
    sd = load_file(folder / "model.safetensors")
    key = "vision_model.post_layernorm.weight"
    save_file(sd | {key: torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"a": Evil()}, folder / "pytorch_model.bin")


def plain_pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def code_of_its_own(folder: Path) -> None:
    (folder / "evil.py").write_text("open('evil-was-here', 'w')")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def change(file: str, **values: Any) -> Any:
    def work(folder: Path) -> None:
        found = json.loads((folder / file).read_text()) | values
        (folder / file).write_text(json.dumps({k: v for k, v in found.items() if v is not None}))

    return work


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("*token*"):
        file.unlink()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (damage_weights, "weights that cannot be loaded as SigLIP"),
        (drop_weights, "not all of them .missing: text_model.encoder.layers.1.mlp"),
        (bend_weights, "weights that cannot be loaded as SigLIP|not all of them"),
        (pickle_only, "a folder without model.safetensors .weights in pickles are not read"),
        (plain_pickle_only, "a folder without model.safetensors .weights in pickles are not read"),
        (no_tokenizer, "whose tokenizer transformers cannot load"),
        (change("config.json", model_type="clip"), "a model of type 'clip', not 'siglip'"),
        (change("config.json", model_type="siglip2"), "a NaFlex model of SigLIP 2; take one of a fixed resolution"),
        (change("preprocessor_config.json", resample=None), "preprocessor_config.json has no usable value for 'resample'"),
        (change("preprocessor_config.json", resample=0), "preprocessor_config.json has no usable value for 0"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "a folder without preprocessor_config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
    ],
)
def test_a_folder_that_is_no_siglip_is_refused(siglip: SimpleNamespace, monkeypatch: Any, damage: Any, says: str) -> None:
    monkeypatch.chdir(siglip.folder.parent)
    damage(siglip.folder)
    with pytest.raises(ValueError, match=f"^SigLIP Score: input 'model_name' is 'siglip', .*{says}.*The usual one"):
        run_node(NSSigLIPScore, model_name="siglip", prompt="cat")
    assert not Path("evil-was-here").exists()


def test_code_in_a_folder_is_never_run(siglip: SimpleNamespace, monkeypatch: Any) -> None:
    monkeypatch.chdir(siglip.folder.parent)
    code_of_its_own(siglip.folder)
    try:
        run_node(NSSigLIPScore, model_name="siglip", prompt="cat")
    except ValueError as error:
        assert "SigLIP Score: input 'model_name'" in str(error)
    assert not Path("evil-was-here").exists()


def test_a_siglip_that_is_not_there_is_refused(models: Path) -> None:
    with pytest.raises(ValueError, match="^SigLIP Score: input 'model_name' is 'gone', .*not in models/verifiers"):
        run_node(NSSigLIPScore, model_name="gone", prompt="cat")
