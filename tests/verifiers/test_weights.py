"""Weights: where they are looked for, what is refused, and that ComfyUI holds them."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.model_management as mm  # noqa: E402
import folder_paths  # noqa: E402

from noise_search.nodes.weights import files as weights  # noqa: E402
from noise_search.nodes.weights.files import (  # noqa: E402
    HeldModel,
    Wanted,
    check_keys,
    file_path,
    files,
    held,
    read_weights,
    repositories,
    repository_path,
)

WANTED = Wanted("Some Score", "model_name", ("verifiers",), "model.safetensors of https://example.org/some")


class Evil:
    def __reduce__(self):
        return (Path("evil-was-here").touch, ())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    paths, extensions = folder_paths.folder_names_and_paths["verifiers"]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "verifiers", ([str(tmp_path)], extensions))
    folder_paths.filename_list_cache.pop("verifiers", None)
    yield tmp_path
    folder_paths.filename_list_cache.pop("verifiers", None)


def test_the_folder_is_registered_with_weight_files_only(folder: Path) -> None:
    (folder / "a.safetensors").touch()
    (folder / "notes.txt").touch()
    assert files(WANTED) == ["a.safetensors"]


def test_paths_of_the_user_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "verifiers", (["/users/own"], set()))
    weights.register_folder("verifiers", ours=True)
    paths, extensions = folder_paths.folder_names_and_paths["verifiers"]
    assert paths == ["/users/own", str(Path(folder_paths.models_dir, "verifiers"))]
    assert ".safetensors" in extensions


def test_a_missing_file_is_named_with_folder_and_source(folder: Path) -> None:
    with pytest.raises(ValueError, match="Some Score: input 'model_name' is 'b.pt'.*models/verifiers.*example.org/some"):
        file_path(WANTED, "b.pt")


@pytest.mark.parametrize("name", ["../b.safetensors", "/etc/passwd", "none"])
def test_names_outside_of_the_folder_are_refused(folder: Path, name: str) -> None:
    (folder.parent / "b.safetensors").touch()
    with pytest.raises(ValueError, match="not in models/verifiers"):
        file_path(WANTED, name)
    with pytest.raises(ValueError, match="not in models/verifiers"):
        repository_path(WANTED, name)


def test_repositories_are_folders_with_a_config(folder: Path) -> None:
    (folder / "org" / "model").mkdir(parents=True)
    (folder / "empty").mkdir()
    assert repositories(WANTED) == ["none"]
    (folder / "org" / "model" / "config.json").write_text("{}")
    assert repositories(WANTED) == ["org/model"]
    assert Path(repository_path(WANTED, "org/model")) == folder / "org" / "model"


def test_both_formats_are_read(folder: Path) -> None:
    sd = {"a": torch.arange(3.0)}
    save_file(sd, folder / "a.safetensors")
    torch.save({"state_dict": sd, "epoch": 3}, folder / "a.pt")
    for name in ("a.safetensors", "a.pt"):
        assert torch.equal(read_weights(WANTED, name, str(folder / name))["a"], sd["a"])


def test_damaged_files_and_pickles_with_code_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    save_file({"a": torch.zeros(100)}, folder / "whole.safetensors")
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-20])
    (folder / "text.pt").write_text("not weights")
    torch.save({"a": Evil()}, folder / "evil.pt")
    torch.save({"a": torch.zeros(100)}, folder / "half.pt")
    (folder / "half.pt").write_bytes((folder / "half.pt").read_bytes()[:300])
    torch.save({"a": [1, 2]}, folder / "list.pt")
    for name in ("cut.safetensors", "text.pt", "evil.pt", "half.pt", "list.pt"):
        with pytest.raises(ValueError, match=f"Some Score: input 'model_name' is '{name}'.*a file that"):
            read_weights(WANTED, name, str(folder / name))
    assert not (folder / "evil-was-here").exists()


def test_weights_of_another_model_are_refused() -> None:
    sd = {"a": torch.zeros(2, 3), "more": torch.zeros(1)}
    check_keys(WANTED, "x", sd, {"a": (2, 3)})
    with pytest.raises(ValueError, match=r"weights of another model \(b is missing; a \(2, 3\) in place of \(3, 2\)\)"):
        check_keys(WANTED, "x", sd, {"a": (3, 2), "b": (1,)})


def test_models_are_loaded_while_they_work_and_can_be_evicted() -> None:
    model = HeldModel(torch.nn.Linear(3, 2))
    assert model.patcher not in mm.loaded_models()
    out = model(lambda module, device: module(torch.ones(1, 3, dtype=model.dtype, device=device)), 1e6)
    assert out.shape == (1, 2)
    assert any(loaded is model.patcher or loaded.is_clone(model.patcher) for loaded in mm.loaded_models())
    mm.unload_all_models()
    assert mm.loaded_models() == []


def test_nodes_that_name_one_file_share_it_while_one_lives(folder: Path) -> None:
    path = folder / "a.pt"
    path.write_text("1")
    first = held("linear", str(path), lambda: torch.nn.Linear(1, 1))
    assert held("linear", str(path), lambda: pytest.fail("built twice")) is first
    assert held("other", str(path), lambda: torch.nn.Linear(1, 1)) is not first
    path.write_text("22")  # another file under the same name
    second = held("linear", str(path), lambda: torch.nn.Linear(1, 1))
    assert second is not first
    del first, second
    gc.collect()
    built = []
    third = held("linear", str(path), lambda: built.append(1) or torch.nn.Linear(1, 1))
    assert built and third is not None


def test_cancel_stops_the_work_of_a_slice() -> None:
    model, done = HeldModel(torch.nn.Linear(3, 2)), []
    mm.interrupt_current_processing()
    with pytest.raises(mm.InterruptProcessingException):
        model(lambda module, device: done.append(1))
    assert not done
    model(lambda module, device: done.append(1))  # asked once, it is over
    assert done


def test_cancel_is_no_reason_to_halve_a_slice() -> None:
    from noise_search.verifiers.common.preprocess import in_slices

    model, sizes = HeldModel(torch.nn.Linear(3, 2)), []

    def work(part: torch.Tensor) -> torch.Tensor:
        sizes.append(len(part))
        if len(sizes) == 2:
            mm.interrupt_current_processing()
        return model(lambda module, device: part[:, 0, 0])

    with pytest.raises(mm.InterruptProcessingException):
        in_slices(work, torch.zeros(40, 2, 2, 3))
    assert sizes == [16, 16]
