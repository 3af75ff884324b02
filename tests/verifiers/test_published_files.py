"""Files that people have: compiled programs, wrapped models, checkpoints of trainers, heads of the first version."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_clip import EMBEDDING, make_head
from torch import Tensor, nn

from inprocess import boot, run_node

pytestmark = pytest.mark.comfy

boot()

from noise_search.nodes.definitions.verifiers.basic import NSClipScore  # noqa: E402
from noise_search.nodes.definitions.verifiers.clip import NSAestheticScore  # noqa: E402
from noise_search.nodes.definitions.verifiers.image_reward import load_model  # noqa: E402
from noise_search.nodes.weights.files import Wanted, below, read_weights, said  # noqa: E402

WANTED = Wanted("Some Score", "model_name", ("verifiers",), "model.safetensors of https://example.org/some")
PICTURES = torch.rand(3, 40, 32, 3, generator=torch.Generator().manual_seed(0))


def refusal(name: str, folder: Path) -> str:
    with pytest.raises(ValueError) as refused:
        read_weights(WANTED, name, str(folder / name))
    return str(refused.value)


@pytest.fixture
def clip(tiny_clip: SimpleNamespace, models: Path) -> dict[str, Tensor]:
    sd = load_file(tiny_clip.path)
    save_file(sd, models / "clip.safetensors")
    return sd


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("ViT-L-14.pt", "model.safetensors of https://huggingface.co/openai/clip-vit-large-patch14."),
        ("ViT-B-32.pt", "model.safetensors of https://huggingface.co/openai/clip-vit-base-patch32."),
        ("other.pt", "a file of its weights alone."),
    ],
)
def test_of_a_compiled_program_it_is_said_what_to_take_instead(models: Path, name: str, instead: str) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), models / name)
    text = refusal(name, models)
    assert text == (
        f"Some Score: input 'model_name' is {name!r}, a file that holds a program (TorchScript), which is not run; in its place"
        f" take {instead} The usual one: {WANTED.source}."
    )


class Evil:
    def __reduce__(self) -> tuple:
        return (Path("evil-was-here").touch, ())


def damaged(folder: Path, name: str) -> None:
    if name == "evil.pt":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "more": Evil()}, folder / name)
    elif name == "old.pt":
        (folder / name).write_bytes(pickle.dumps({"a": Evil()}, protocol=2))
    elif name == "text.pt":
        (folder / name).write_text("not weights")
    else:
        torch.save({"a": torch.zeros(100)}, folder / name)
        (folder / name).write_bytes((folder / name).read_bytes()[:300])


@pytest.mark.parametrize("name", ["evil.pt", "old.pt", "text.pt", "half.pt"])
def test_what_cannot_be_read_is_refused_in_our_own_words(models: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """torch's text advises to read such a file all the same, which runs what is in it."""
    monkeypatch.chdir(models)
    damaged(models, name)
    text = refusal(name, models)
    assert "a file that cannot be read as weights (it " in text
    assert not any(part in text for part in ("weights_only", "torch.load", "\033", "Unsupported", "\n"))
    assert not (models / "evil-was-here").exists()


def test_errors_are_told_without_control_codes() -> None:
    assert said(ValueError("\n \033[1mbold\033[0m and\x07 bell\nsecond line")) == "bold and bell"


# Prefixes


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "module.clip_model."])
def test_a_wrapped_clip_scores_as_it_does_bare(clip: dict[str, Tensor], models: Path, prefix: str) -> None:
    more = {"loss.weight": torch.zeros(1)} if prefix == "model." else {}
    torch.save({"state_dict": {f"{prefix}{key}": value for key, value in clip.items()} | more}, models / "wrapped.pt")
    bare, wrapped = (
        run_node(NSClipScore, model_name=name, prompt="a cat")[0].score(PICTURES) for name in ("clip.safetensors", "wrapped.pt")
    )
    assert torch.equal(bare, wrapped)


def test_two_models_in_one_file_are_not_told_apart() -> None:
    sd = {"a.w": torch.zeros(1), "b.w": torch.ones(1)}
    assert below(sd, "w") == sd
    assert below({"a.w": torch.ones(1), "a.v": torch.zeros(1), "aw": torch.zeros(1)}, "w") == {
        "w": torch.ones(1), "v": torch.zeros(1),
    }  # fmt: skip


def test_a_wrapped_image_reward_is_read(models: Path) -> None:
    from tiny_image_reward import write_model

    bare = torch.load(write_model(models), weights_only=True)
    torch.save({f"module.{key}": value for key, value in bare.items()}, models / "wrapped.pt")
    first, second = (load_model(name, str(models / name)).module.state_dict() for name in ("ImageReward.pt", "wrapped.pt"))
    assert all(torch.equal(first[key], second[key]) for key in first)


# Heads of the aesthetic score


def aesthetic_scores(name: str) -> Tensor:
    (verifier,) = run_node(NSAestheticScore, model_name=name, clip_name="clip.safetensors")
    return verifier.score(PICTURES)


def trainer_objects(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what Lightning leaves in a checkpoint beside the weights: objects of classes that the reader has not."""
    made: dict[str, Any] = {}
    for module, name in (
        ("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"),
        ("pytorch_lightning.utilities.parsing", "AttributeDict"),
    ):
        kind = type(name, (dict,), {"__module__": module})
        names = module.split(".")
        for depth in range(1, len(names) + 1):
            whole = ".".join(names[:depth])
            if whole not in sys.modules:
                monkeypatch.setitem(sys.modules, whole, ModuleType(whole))
        setattr(sys.modules[module], name, kind)
        made[name] = kind
    settings = made["AttributeDict"](input_size=EMBEDDING)
    settings.more = 3
    return {
        "epoch": 3, "pytorch-lightning_version": "1.4.2", "hyper_parameters": settings, "optimizer_states": [],
        "callbacks": {made["ModelCheckpoint"]: {"best_model_path": Path("/somewhere"), "best_model_score": torch.ones(())}},
    }  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_head_in_a_checkpoint_of_lightning_is_read(
    clip: dict[str, Tensor], models: Path, monkeypatch: pytest.MonkeyPatch, prefix: str
) -> None:
    head = make_head().state_dict()
    torch.save(head, models / "head.pth")
    checkpoint = {"state_dict": {f"{prefix}{key}": value for key, value in head.items()}}
    with monkeypatch.context() as patched:
        torch.save(checkpoint | trainer_objects(patched), models / "last.ckpt")
    assert "pytorch_lightning" not in sys.modules
    assert torch.equal(aesthetic_scores("last.ckpt"), aesthetic_scores("head.pth"))


@pytest.mark.parametrize("prefix", ["", "linear."])
def test_the_first_versions_head_is_one_linear_layer(clip: dict[str, Tensor], models: Path, prefix: str) -> None:
    generator = torch.Generator().manual_seed(4)
    weight, bias = torch.randn(1, EMBEDDING, generator=generator), torch.randn(1, generator=generator)
    torch.save({f"{prefix}weight": weight, f"{prefix}bias": bias}, models / "sa_0_4_vit_l_14_linear.pth")
    (verifier,) = run_node(NSClipScore, model_name="clip.safetensors", prompt="a cat")
    expected = nn.functional.linear(verifier.image_features(PICTURES), weight, bias)[:, 0]
    torch.testing.assert_close(aesthetic_scores("sa_0_4_vit_l_14_linear.pth"), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("spoil", [lambda sd: sd.pop("bias"), lambda sd: sd.update(weight=torch.zeros(2, EMBEDDING))])
def test_what_is_no_head_of_the_first_version_is_refused(
    clip: dict[str, Tensor], models: Path, spoil: Callable[[dict[str, Tensor]], Any]
) -> None:
    sd = {"weight": torch.zeros(1, EMBEDDING), "bias": torch.zeros(1)}
    spoil(sd)
    torch.save(sd, models / "head.pth")
    with pytest.raises(ValueError, match="^Aesthetic Score: input 'model_name' is 'head.pth', weights of another model"):
        aesthetic_scores("head.pth")
