"""The key of a set-up changes exactly when a candidate may: with models, files, settings and what reached the node."""

from __future__ import annotations

import copy
import hashlib
import json
import os

import pytest

from inprocess import boot

pytestmark = pytest.mark.comfy

boot()

import comfy.clip_vision
import comfy.controlnet
import comfy.model_management as mm
import comfy.utils
import comfy.weight_adapter
import folder_paths
import torch
from searching import parts

from noise_search.nodes.run.runner import graphs
from noise_search.nodes.store import fingerprints as known_files
from noise_search.nodes.store.fingerprints import BLOCK, LARGE, fingerprint, fingerprints
from noise_search.nodes.store.setup_key import Unreadable, noise_hash, setup_key, verifier_signature
from toys import cond, guider, run_node, toy_model

PROMPT = {
    "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "toy.safetensors", "weight_dtype": "default"}},
    "2": {"class_type": "LoraLoaderModelOnly",
          "inputs": {"model": ["1", 0], "lora_name": "style/a.safetensors", "strength_model": 1.0}},
    "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["9", 0], "text": "a cat"}},
    "4": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
    "5": {"class_type": "VAEEncode", "inputs": {"pixels": ["4", 0], "vae": ["6", 0]}},
    "6": {"class_type": "VAELoader", "inputs": {"vae_name": "v.safetensors"}},
    "7": {"class_type": "NSClipScore", "inputs": {"prompt": "a cat", "clip": ["9", 0]}},
    "8": {"class_type": "NSRandomSearch", "inputs": {"draft_steps": 0}},
    "9": {"class_type": "CLIPLoader", "inputs": {"clip_name": "c.safetensors"}},
    "10": {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "x"}},
    "11": {
        "class_type": "NSSearchSampler",
        "inputs": {
            "model": ["2", 0], "seed": 1, "steps": 20, "cfg": 8.0, "sampler_name": "euler", "scheduler": "normal",
            "positive": ["3", 0], "negative": ["3", 0], "latent_image": ["5", 0], "denoise": 1.0, "vae": ["6", 0],
            "verifier": ["7", 0], "budget": 8, "keep": 1, "method": ["8", 0], "choose": "", "resume": "on",
        },
    },
}  # fmt: skip


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Model and input folders with small files."""
    for kind, name in (("diffusion_models", "toy"), ("loras", "style/a"), ("vae", "v"), ("text_encoders", "c")):
        root = tmp_path / kind
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / f"{name}.safetensors").write_bytes(name.encode())
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(root)], {".safetensors"}))
    (tmp_path / "input").mkdir()
    (tmp_path / "input" / "in.png").write_bytes(b"a picture")
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    return tmp_path


def graph_of(seed=3, **changes):
    """What reached the node."""
    made = {**parts("eps"), **changes}
    (noise,) = run_node("RandomNoise", noise_seed=seed)
    return next(graphs(noise, made["guider"], made["sampler"], made["sigmas"], made["latent_image"], made["vae"]))


def key(prompt=PROMPT, node="11", graph=None, batching="auto"):
    return setup_key(prompt, node, graph or graph_of(), batching)


def changed(node, name, value):
    prompt = copy.deepcopy(PROMPT)
    prompt[node]["inputs"][name] = value
    return prompt


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("11", "cfg", 7.9), ("11", "steps", 21), ("11", "sampler_name", "euler_ancestral"), ("11", "scheduler", "simple"),
        ("11", "denoise", 0.5), ("11", "negative", ["3", 1]), ("11", "model", ["1", 0]), ("11", "preview_vae", ["6", 0]),
        ("1", "weight_dtype", "fp8_e4m3fn"), ("2", "strength_model", 0.9), ("3", "text", "a dog"), ("6", "vae_name", "w"),
        ("9", "clip_name", "d"), ("4", "image", "other.png"), ("3", "new", None),
    ],
)  # fmt: skip
def test_a_setting_before_the_node_changes_it(folders, node, name, value):
    assert key(changed(node, name, value)) != key()


@pytest.mark.parametrize(
    ("node", "name", "value"),
    [
        ("11", "seed", 2), ("11", "budget", 99), ("11", "keep", 4), ("11", "method", ["12", 0]), ("11", "limits", ["12", 0]),
        ("11", "verifier", ["12", 0]), ("11", "held_out", ["7", 0]), ("11", "on_cancel", "keep best"), ("11", "choose", "{}"),
        ("11", "on_verifier_error", "skip"), ("11", "resume", "fresh"), ("7", "prompt", "a dog"), ("8", "draft_steps", 5),
        ("10", "filename_prefix", "y"), ("11", "cfg", 8), ("11", "batching", "off"),
    ],
)  # fmt: skip
def test_what_only_chooses_does_not(folders, node, name, value):
    assert key(changed(node, name, value)) == key()


@pytest.mark.parametrize("words", [1, 35, 40, 70, 100])
def test_prompts_of_any_length_are_settings(folders, words):
    """The longest name that a file can have is 255 bytes, and most prompts are longer."""
    assert key(changed("3", "text", "a cat, " * words)) != key()
    assert verifier_signature(changed("7", "prompt", "a cat, " * words), "11", "verifier")


def test_ids_titles_order_and_other_nodes_do_not(folders):
    def moved(value):
        return [f"1:{value[0]}", value[1]] if isinstance(value, list) else value

    other = {
        f"1:{name}": {"class_type": node["class_type"], "_meta": {"title": "renamed"},
                      "inputs": {k: moved(v) for k, v in reversed(node["inputs"].items())}}
        for name, node in reversed(PROMPT.items()) if name != "10"
    }  # fmt: skip
    other["99"] = {"class_type": "PreviewImage", "inputs": {"images": ["1:4", 0]}}
    assert key(other, "1:11") == key()
    assert verifier_signature(other, "1:11", "verifier") == verifier_signature(PROMPT, "11", "verifier")


@pytest.mark.parametrize("file", ["diffusion_models/toy.safetensors", "loras/style/a.safetensors", "vae/v.safetensors",
                                  "text_encoders/c.safetensors", "input/in.png"])  # fmt: skip
def test_the_content_of_files_changes_it_and_their_dates_do_not(folders, file):
    before, path = key(), folders / file
    os.utime(path, (1, 1))
    assert key() == before
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    assert key() != before


def test_what_reached_the_node_changes_it():
    noisy = {"samples": torch.full((1, 4, 8, 8), 0.5)}
    masked = {"samples": torch.zeros(1, 4, 8, 8), "noise_mask": torch.ones(1, 8, 8)}
    other = guider(toy_model("eps"), positive=cond(toy_model("eps"), 5))
    graphs_ = [
        graph_of(), graph_of(latent_image=noisy), graph_of(latent_image=masked), graph_of(guider=other),
        graph_of(sigmas=parts("eps", steps=7)["sigmas"]),
    ]  # fmt: skip
    assert len({key(graph=graph) for graph in graphs_}) == 5
    assert key(graph=graph_of(seed=4)) == key(graph=graph_of(seed=3)) != key(batching="on")
    assert noise_hash(graph_of(4)) != noise_hash(graph_of(3)) == noise_hash(graph_of(3))


def with_hint(value, strength=1.0, previous=None):
    """A graph whose conditioning holds a control with a hint of one value, behind another."""
    model = toy_model("eps")
    control = comfy.controlnet.ControlBase().set_cond_hint(torch.full((1, 3, 64, 64), value), strength)
    control.set_previous_controlnet(previous)
    positive = [[tensor, {**more, "control": control}] for tensor, more in cond(model, 1)]
    return graph_of(guider=guider(model, positive=positive))


def with_seen(value):
    """A graph whose conditioning holds what a CLIP vision model saw."""
    model, output = toy_model("eps"), comfy.clip_vision.Output()
    output.image_embeds = torch.full((1, 8), value)
    positive = [[tensor, {**more, "clip_vision_output": output}] for tensor, more in cond(model, 1)]
    return graph_of(guider=guider(model, positive=positive))


def test_what_objects_in_the_conditioning_were_given_changes_it():
    """The nodes that made it may be a search that somebody ended elsewhere, or choose a picture by themselves."""
    first = comfy.controlnet.ControlBase().set_cond_hint(torch.ones(1, 3, 64, 64))
    made = [with_hint(0.0), with_hint(0.5), with_hint(0.5, previous=first), with_seen(0.0), with_seen(0.5)]
    keys = [key(graph=graph) for graph in made]
    assert len(set(keys)) == 5 and keys[1] == key(graph=with_hint(0.5)) and keys[4] == key(graph=with_seen(0.5))


def with_lora(seed, rank=4):
    """A graph whose model is patched with random weights, as a LoRA node patches it."""
    model, random = toy_model("eps"), torch.Generator().manual_seed(seed)
    name, weight = next((name, w) for name, w in model.model.state_dict().items() if w.ndim == 2)
    up, down = (torch.randn(shape, generator=random) for shape in ((weight.shape[0], rank), (rank, weight.shape[1])))
    adapter = comfy.weight_adapter.LoRAAdapter(set(), (up, down, 1.0, None, None, None))
    model.add_patches({name: adapter}, 0.5)
    return graph_of(guider=guider(model, positive=cond(model, 1), negative=cond(model, 2)))


def test_what_the_model_is_patched_with_changes_it():
    """ComfyUI keeps what it loaded of a LoRA whose file was written anew; its pictures are not those of the new file."""
    keys = [key(graph=graph) for graph in (graph_of(), with_lora(1), with_lora(2), with_lora(1), with_lora(1, rank=200))]
    assert len(set(keys)) == 4 and keys[1] == keys[3]


def test_the_verifier_is_told_by_what_it_is_made_of(folders):
    before = verifier_signature(PROMPT, "11", "verifier")
    assert verifier_signature(changed("11", "cfg", 1.0), "11", "verifier") == before
    assert verifier_signature(changed("7", "prompt", "a dog"), "11", "verifier") != before
    (folders / "text_encoders" / "c.safetensors").write_bytes(b"another")
    assert verifier_signature(PROMPT, "11", "verifier") != before


class Inside:
    """A part of a verifier, or a `SubGraph`."""

    def __init__(self, **held):
        self.__dict__ |= held


def test_the_verifier_is_told_by_what_other_nodes_gave_it(folders):
    """The picture that it compares with may be the winner of a search that somebody ended elsewhere."""
    seen = [Inside(reference=torch.full((1, 8, 8, 3), value)) for value in (0.0, 1.0)]
    texts = [Inside(prompt=text) for text in ("a cat", "a dog")]
    graphs_ = [Inside(run=Inside(given={"4": {0: [torch.full((1,), value)]}})) for value in (0.0, 1.0)]
    reached = [[one] for one in (*seen, *texts, *graphs_)] + [[Inside(parts=(texts[0], one))] for one in seen] + [texts]
    signatures = [verifier_signature(PROMPT, "11", "verifier", one) for one in reached]
    assert len(set(signatures)) == 9
    again = [Inside(reference=torch.ones(1, 8, 8, 3), cache=object())]
    assert verifier_signature(PROMPT, "11", "verifier", again) == signatures[1]


@pytest.mark.parametrize("prompt", [{}, {**PROMPT, "2": {"class_type": "X", "inputs": {"model": ["2", 0]}}},
                                    {name: node for name, node in PROMPT.items() if name != "9"}])  # fmt: skip
def test_what_cannot_be_read_is_no_key(folders, prompt):
    with pytest.raises(Unreadable):
        key(prompt)
    with pytest.raises(Unreadable, match="held_out"):
        verifier_signature(PROMPT, "11", "held_out")


@pytest.fixture
def user(tmp_path, monkeypatch):
    """A user folder of its own, and files that are taken for what they are as soon as they are written."""
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    monkeypatch.setattr(known_files, "SETTLED", -(10**12))
    monkeypatch.setattr(known_files, "_known", {})
    return tmp_path / "user" / "__noise_search"


class Reads:
    """Counts the files that are read."""

    def __init__(self, monkeypatch):
        self.paths, read = [], known_files._read
        monkeypatch.setattr(known_files, "_read", lambda path, size: (self.paths.append(path.name), read(path, size))[1])

    def another_server(self, monkeypatch):
        monkeypatch.setattr(known_files, "_known", {})
        self.paths.clear()


def sha(data):
    return hashlib.sha256(f"{len(data)}".encode() + data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 100_000, LARGE, LARGE + 1, 3 * LARGE + 12_345])
def test_a_fingerprint_is_of_all_that_a_file_holds(user, tmp_path, size):
    """Of files that are not large it is what it always was, so that their journals are found."""
    path, data = tmp_path / "file.bin", torch.randint(256, (size,), dtype=torch.uint8).numpy().tobytes()
    path.write_bytes(data)
    assert fingerprint(path) == sha(data)


def test_any_changed_byte_of_a_large_file_is_noticed(user, tmp_path):
    path, size = tmp_path / "large.bin", 5 * LARGE
    path.write_bytes(bytes(size))
    seen = {fingerprint(path)}
    for position in (0, size // 3, 2_345_678, size // 2 + 1, size - 1):
        with path.open("r+b") as file:
            file.seek(position)
            file.write(b"x")
        os.utime(path, ns=(1, 1))  # as a tool that keeps times does: the inode's own time tells
        seen.add(fingerprint(path))
    assert len(seen) == 6


def test_large_files_are_read_once_by_all_servers(user, tmp_path, monkeypatch):
    path, small, reads = tmp_path / "large.bin", tmp_path / "small.bin", Reads(monkeypatch)
    path.write_bytes(bytes(LARGE + 1))
    small.write_bytes(b"small")
    first = [fingerprint(path), fingerprint(small), fingerprint(path)]
    assert reads.paths == ["large.bin", "small.bin"]
    reads.another_server(monkeypatch)
    assert [fingerprint(path), fingerprint(small)] == first[:2] and reads.paths == ["small.bin"]
    known = json.loads((user / "files.json").read_text())["files"]
    assert list(known) == [str(path)] and known[str(path)][-1] == sha(bytes(LARGE + 1))


@pytest.mark.parametrize("change", ["moved over it", "written", "touched"])
def test_a_large_file_that_changed_is_read_again(user, tmp_path, monkeypatch, change):
    path, other, reads = tmp_path / "large.bin", tmp_path / "other.bin", Reads(monkeypatch)
    path.write_bytes(bytes(LARGE + 1))
    other.write_bytes(bytes(LARGE) + b"x")
    before, status = fingerprint(path), path.stat()
    if change == "moved over it":  # with the size and time of what it replaces
        os.utime(other, ns=(status.st_mtime_ns, status.st_mtime_ns))
        other.replace(path)
    elif change == "written":
        path.write_bytes(other.read_bytes())
    else:
        os.utime(path)
    reads.another_server(monkeypatch)
    after = fingerprint(path)
    assert (after == before) == (change == "touched") and reads.paths == ["large.bin"]
    assert len(json.loads((user / "files.json").read_text())["files"]) == 1


def test_a_file_that_was_just_written_is_not_remembered(user, tmp_path, monkeypatch):
    """It may be written once more within what a time of a file can tell."""
    path, reads = tmp_path / "large.bin", Reads(monkeypatch)
    monkeypatch.setattr(known_files, "SETTLED", 10**12)
    path.write_bytes(bytes(LARGE + 1))
    assert fingerprint(path) == fingerprint(path) and reads.paths == ["large.bin"] * 2
    assert not (user / "files.json").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0\xff", b"[]", b"3", b'{"version": 2, "files": {}}', b'{"version": 1}', b'{"version": 1, "files": {"a": 3}}',
        b'{"version": 1, "files": {"a": [1, 2, 3, "x", "y"]}}',
    ],
)  # fmt: skip
def test_a_list_of_files_that_is_none_is_begun_anew(user, tmp_path, monkeypatch, content):
    path, reads = tmp_path / "large.bin", Reads(monkeypatch)
    path.write_bytes(bytes(LARGE + 1))
    user.mkdir(parents=True)
    (user / "files.json").write_bytes(content)
    first = fingerprint(path)
    reads.another_server(monkeypatch)
    assert fingerprint(path) == first and reads.paths == []


def test_a_list_of_files_that_cannot_be_written_costs_reading_only(user, tmp_path, monkeypatch):
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(LARGE + 1))
    user.parent.mkdir(parents=True)
    user.write_text("in the way")
    assert fingerprint(path) == sha(bytes(LARGE + 1))


def test_cancel_is_heard_while_a_large_file_is_read_and_its_progress_is_shown(user, tmp_path, monkeypatch):
    path, shown = tmp_path / "large.bin", []

    class Bar:
        def __init__(self, total):
            self.total, self.value = total, 0

        def update(self, value):
            self.value += value
            shown.append((self.value, self.total))
            if len(shown) == 2:
                mm.interrupt_current_processing(True)

    monkeypatch.setattr(comfy.utils, "ProgressBar", Bar)
    path.write_bytes(bytes(5 * BLOCK))
    with pytest.raises(mm.InterruptProcessingException):
        fingerprint(path)
    assert shown == [(BLOCK, 5 * BLOCK), (2 * BLOCK, 5 * BLOCK)] and not (user / "files.json").exists()
    assert fingerprint(path) == sha(bytes(5 * BLOCK)) and shown[-1] == (5 * BLOCK, 5 * BLOCK)


@pytest.mark.parametrize("name", ["../secret.txt", "/etc/hostname", "..", ".", "", "a\nb", "a\0b", "x" * 5000, "style",
                                  "a cat, " * 40])  # fmt: skip
def test_no_file_outside_is_read(folders, name):
    (folders / "secret.txt").write_text("secret")
    assert fingerprints(name) == []


def test_a_model_that_is_a_folder_counts_with_all_its_files(folders):
    folder = folders / "loras" / "clip-model"
    folder.mkdir()
    (folder / "weights.bin").write_bytes(b"1")
    assert fingerprints("clip-model") == []
    (folder / "config.json").write_text("{}")
    (before,) = fingerprints("clip-model")
    (folder / "weights.bin").write_bytes(b"2!")
    assert fingerprints("clip-model") != [before]
