"""The example workflows: fit to be shipped, and run on a real server with the demo model."""

from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from examples import DEMO_VALUES, INPUT_PICTURE, NAMES, ROOT, USER_FORMS, api_form, demo_form, user_form
from gallery import GRAPHS
from PIL import Image
from reported import reports_in
from tiny_files import write_tiny_files

from node_api import NODES

STOCK = {
    "BasicGuider", "BasicScheduler", "CFGGuider", "CheckpointLoaderSimple", "CLIPLoader", "CLIPTextEncode",
    "ConditioningZeroOut", "CreateVideo", "DualCLIPLoader", "EmptyHunyuanLatentVideo", "EmptyLatentImage",
    "EmptySD3LatentImage", "FluxGuidance", "ImageCompositeMasked", "ImageCrop", "ImageScale", "KSampler", "KSamplerSelect",
    "LatentUpscaleBy", "LoadImage", "LoraLoaderModelOnly", "MarkdownNote", "MaskComposite", "ModelSamplingAuraFlow",
    "ModelSamplingSD3", "PreviewAny", "PreviewImage", "PrimitiveInt", "PrimitiveStringMultiline", "RandomNoise", "SaveImage",
    "SaveVideo", "SetLatentNoiseMask", "SolidMask", "UNETLoader", "VAEDecode", "VAEEncode", "VAELoader",
}  # fmt: skip
NOT_PORTABLE = re.compile(r"(?<![:/\w])/(?:home|root|tmp|work|usr|mnt)/|[A-Z]:\\\\|api[_-]?key|hf_[A-Za-z0-9]{8}", re.IGNORECASE)
TITLE = 30  # pixels above a node's position
PLOT = (960, 600)
PUBLISHED = re.compile(r"https://(huggingface\.co/[\w.-]+/[\w.-]+/resolve|github\.com/[\w.-]+/[\w.-]+/raw)/main(/[\w.%-]+)+")
MODEL_FILES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")


def of_type(workflow: dict[str, Any], kind: str) -> str:
    """Return the id of the one node of a type."""
    (found,) = (node_id for node_id, node in workflow.items() if node["class_type"] == kind)
    return found


def pictures(server: Any, workflow: dict[str, Any]) -> dict[str, list[np.ndarray]]:
    """Run a workflow; return the pictures of its output nodes, by type, (H, W, 3) in 0 to 255; of a video its frames."""
    result = server.run(workflow)
    return {
        f"{workflow[node_id]['class_type']}{node_id}": [p for entry in output["images"] for p in frames(server.image(entry))]
        for node_id, output in result.outputs.items()
        if "images" in output
    }


def frames(file: bytes) -> list[np.ndarray]:
    """Return the frames of a picture's or video's file, (H, W, 3) in 0 to 255."""
    import av

    with av.open(io.BytesIO(file)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def boxes(workflow: dict[str, Any]) -> dict[str, tuple[float, float, float, float]]:
    """Return left, top, right and bottom of every node."""
    out = {}
    for node in workflow["nodes"]:
        (x, y), (w, h) = node["pos"], node["size"]
        out[f"{node['type']} {node['id']}"] = (x, y - TITLE, x + w, y + h)
    return out


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def test_every_example_is_known_and_has_a_picture():
    assert sorted(path.stem for path in USER_FORMS.glob("*.json")) == sorted(NAMES)
    assert sorted(path.stem for path in USER_FORMS.glob("*.jpg")) == sorted(NAMES)
    for path in [*USER_FORMS.glob("*.jpg"), *(ROOT / "docs" / "images").iterdir()]:
        assert path.stat().st_size < 300_000, path.name


def test_the_files_are_what_their_graphs_say():
    """Whoever changes a graph runs tools/make_workflows.py."""
    assert [graph.name for graph in GRAPHS] == NAMES
    for graph in GRAPHS:
        nodes, ids = graph.nodes(), {node.key: index for index, node in enumerate(graph.nodes(), 1)}
        saved = {node["id"]: node for node in user_form(graph.name)["nodes"]}
        assert {ids[node.key]: node.type for node in nodes} == {node_id: node["type"] for node_id, node in saved.items()}
        for node in nodes:
            found = saved[ids[node.key]]
            assert not node.title or found["title"] == node.title
            assert found["properties"].get("models", []) == list(node.models)
            written = found.get("widgets_values", [])
            assert [value for value in node.values.values() if value not in written] == [], (graph.name, node.key)
        links = [(*link[1:4], saved[link[3]]["inputs"][link[4]]["name"]) for link in user_form(graph.name)["links"]]
        meant = [(ids[key], slot, ids[node.key], name) for node in nodes for name, (key, slot) in node.links.items()]
        assert sorted(links) == sorted(meant), graph.name


@pytest.mark.parametrize("name", NAMES)
class TestUserForm:
    def test_only_core_and_this_pack(self, name):
        types = {node["type"] for node in user_form(name)["nodes"]}
        assert types <= STOCK | set(NODES), types - STOCK - set(NODES)

    def test_nothing_of_the_machine_it_was_made_on(self, name):
        for form in (user_form(name), api_form(name)):
            assert NOT_PORTABLE.findall(json.dumps(form)) == []

    def test_seeds_stay_as_they_are(self, name):
        for node in user_form(name)["nodes"]:
            assert not {"randomize", "increment", "decrement"} & set(map(str, node.get("widgets_values", [])))

    def test_layout(self, name):
        workflow = user_form(name)
        places = boxes(workflow)
        names = sorted(places)
        assert [(a, b) for a in names for b in names if a < b and overlap(places[a], places[b])] == []
        groups = [(g["bounding"][0], g["bounding"][1], g["bounding"][0] + g["bounding"][2],
                   g["bounding"][1] + g["bounding"][3]) for g in workflow["groups"]]  # fmt: skip
        assert len(groups) >= 4 and all(group["title"] for group in workflow["groups"])
        for title, (left, top, right, bottom) in places.items():
            held = [g for g in groups if g[0] <= left and g[1] <= top and right <= g[2] and bottom <= g[3]]
            touched = [g for g in groups if overlap(g, (left, top, right, bottom))]
            assert held == touched and len(held) == (0 if title.startswith("MarkdownNote") else 1), title

    def test_links_go_left_to_right_or_down(self, name):
        places = {node["id"]: node["pos"] for node in user_form(name)["nodes"]}
        for _, origin, _, target, _, _ in user_form(name)["links"]:
            (x0, y0), (x1, y1) = places[origin], places[target]
            assert x1 > x0 or (x1 == x0 and y1 > y0)

    def test_every_model_file_says_where_it_is_from(self, name):
        named = 0
        for node in user_form(name)["nodes"]:
            files = {value for value in map(str, node.get("widgets_values", [])) if value.endswith(MODEL_FILES)}
            models = node["properties"].get("models", [])
            # The page heeds only files that the node names, so all of them and no other.
            assert sorted(files) == sorted(model["name"] for model in models), node["type"]
            for model in models:
                assert PUBLISHED.fullmatch(model["url"]), model["url"]
                assert Path(model["url"]).suffix == Path(model["name"]).suffix
            named += len(files)
        assert named >= 1

    def test_help_pages_name_the_same_files(self, name):
        for node in user_form(name)["nodes"]:
            if not node["type"].startswith("NS"):
                continue
            page = (ROOT / "web" / "docs" / node["type"] / "en.md").read_text(encoding="utf-8")
            for model in node["properties"].get("models", []):
                repository = "/".join(model["url"].split("/")[3:5])
                for said in (model["name"], f"models/{model['directory']}", repository):
                    assert said in page, (node["type"], said)


def test_demo_form_changes_loaders_and_values_only():
    checkpoint = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "x.safetensors"}}
    decode = {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}, "_meta": {"title": "Decode"}}
    sample = {"class_type": "KSampler", "inputs": {"model": ["1", 0], "steps": 20, "seed": 5}}
    out = demo_form({"1": checkpoint, "2": sample, "3": decode})
    assert out["2"]["inputs"] == {"model": ["UNETLoader", 0], "seed": 5, "steps": 16}
    assert out["3"] == {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["VAELoader", 0]}}
    assert set(out) == {"2", "3", "UNETLoader", "VAELoader"}


def test_demo_form_of_other_models_keeps_what_is_not_the_models_own():
    out = demo_form({
        "1": {"class_type": "UNETLoader", "inputs": {"unet_name": "x.safetensors"}},
        "2": {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": "x.safetensors", "model": ["1", 0]}},
        "3": {"class_type": "ModelSamplingAuraFlow", "inputs": {"shift": 3.1, "model": ["2", 0]}},
        "4": {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": "x.safetensors"}},
        "5": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0], "clip": ["4", 0]}},
        "6": {"class_type": "EmptyHunyuanLatentVideo", "inputs": {"width": 832, "height": 480, "length": 33, "batch_size": 1}},
        "7": {"class_type": "NSSearchSampler", "inputs": {"cfg": 1, "steps": 8, "model": ["3", 0], "latent_image": ["6", 0]}},
        "8": {"class_type": "PrimitiveInt", "inputs": {"value": 320}, "_meta": {"title": "Region: left"}},
        "9": {"class_type": "PrimitiveInt", "inputs": {"value": 320}, "_meta": {"title": "Another"}},
    })  # fmt: skip
    loaders = {"UNETLoader", "NSDemoCLIPLoader"}
    assert set(out) == {"3", "5", "6", "7", "8", "9"} | loaders
    assert out["3"] == {"class_type": "ModelSamplingSD3", "inputs": {"model": ["UNETLoader", 0], "shift": 3.0}}
    assert out["5"]["inputs"] == {"clip": ["NSDemoCLIPLoader", 0], "text": ["9", 0]}
    assert out["6"] == {"class_type": "EmptySD3LatentImage", "inputs": {"batch_size": 1, "height": 64, "width": 64}}
    assert out["7"]["inputs"] == {"cfg": 1, "latent_image": ["6", 0], "model": ["3", 0], "steps": 16}
    assert (out["8"]["inputs"], out["9"]["inputs"]) == ({"value": 8}, {"value": 320})


@pytest.mark.server
def test_files_in_the_named_folders_can_be_chosen(server, model_files):
    known = server.object_info()
    for node in (node for name in NAMES for node in user_form(name)["nodes"]):
        inputs = {k: v for kind in known.get(node["type"], {}).get("input", {}).values() for k, v in kind.items()}
        choices = [option for kind, *more in (v for v in inputs.values() if isinstance(v, list))
                   for option in (kind if isinstance(kind, list) else (more or [{}])[0].get("options", []))]  # fmt: skip
        for model in node["properties"].get("models", []):
            assert model["name"] in choices, (node["type"], model)


@pytest.fixture(scope="module")
def tiny_files(server: Any) -> None:
    write_tiny_files(server.base)


KEPT = {"text_to_image_search": 4, "score_a_batch": 8, "sdxl_search": 2, "z_image_search": 4, "hires_from_winner": 2}
VIDEOS = {"wan_video_search"}


@pytest.mark.server
@pytest.mark.parametrize("name", NAMES)
def test_runs_on_the_demo_model(server, tiny_files, name):
    shown = pictures(server, api_form(name))
    plots = [picture for kind, found in shown.items() if kind.startswith("Preview") for picture in found
             if picture.shape == (PLOT[1], PLOT[0], 3)]  # fmt: skip
    rest = [p for found in shown.values() for p in found if p.shape != (PLOT[1], PLOT[0], 3)]
    searches = "NSSearchSampler" in json.dumps(api_form(name))
    assert len(plots) == searches
    assert len(rest) == KEPT.get(name, 1)
    assert ("SaveVideo" in "".join(shown)) == (name in VIDEOS)
    for picture in rest:
        assert picture.shape == (64, 64, 3)
    for picture in [*plots, *rest]:
        assert picture.std() > 5  # not blank
    assert len({picture.tobytes() for picture in rest}) == len(rest)


@pytest.mark.server
def test_a_found_recipe_gives_the_picture_again(server):
    searching, again = api_form("text_to_image_search"), api_form("reuse_a_winner")
    search = of_type(searching, "NSSearchSampler")
    searching["recipe"] = {"class_type": "PreviewAny", "inputs": {"source": [search, 6]}}
    searching["order"] = {"class_type": "SaveImage", "inputs": {"images": [search, 0], "filename_prefix": "winner"}}
    found = server.run(searching)
    (recipe,) = found.outputs["recipe"]["text"]
    assert json.loads(recipe)["noise"] != str(searching[search]["inputs"]["seed"])  # not the user's own seed
    assert json.loads(recipe)["cuts"]  # refined
    again[of_type(again, "NSRenderCandidate")]["inputs"]["recipe"] = recipe
    winner = np.asarray(Image.open(io.BytesIO(server.image(found.outputs["order"]["images"][0]))).convert("RGB"))
    (rendered,) = pictures(server, again).values()
    assert np.abs(rendered[0].astype(int) - winner.astype(int)).max() <= 1


@pytest.mark.server
def test_the_search_finds_better_than_the_own_seed(server):
    workflow = api_form("text_to_image_search")
    found = server.run(workflow)
    report = reports_in(found.outputs[of_type(workflow, "PreviewAny")]["text"][0])
    assert report["method"]["name"] == "draft search, then refinement search"
    images, finals = round(0.7 * 16), 2
    drafts = ((images - 1 - finals) * 16) // 4
    children = (16 * 16 - (1 + finals) * 16 - drafts * 4) // 4
    assert report["model_calls"] == 16 + drafts * 4 + finals * 16 + children * 4 == 16 * 16
    assert report["verifier_calls"] == drafts + finals + 1 + children
    assert report["best"]["score"] >= report["baseline"]["score"]
    assert report["gain"] == pytest.approx(report["best"]["score"] - report["baseline"]["score"])


@pytest.mark.server
def test_the_second_search_is_of_the_first_ones_winner_enlarged(server):
    workflow = api_form("hires_from_winner")
    workflow[of_type(workflow, "LatentUpscaleBy")]["inputs"]["scale_by"] = 1.5
    second = next(n for n in workflow.values() if n["class_type"] == "NSSearchSampler" and n["inputs"]["budget"] == 4)
    second["inputs"] |= {"denoise": 0.01, "steps": 1, "budget": 1}  # as good as nothing is drawn
    shown = pictures(server, workflow)
    (large,) = (p for kind, found in shown.items() if kind.startswith("SaveImage") for p in found)
    (small,) = (p for found in shown.values() for p in found if p.shape == (64, 64, 3))
    assert large.shape == (96, 96, 3)
    enlarged = np.asarray(Image.fromarray(small).resize((96, 96), Image.Resampling.BILINEAR))
    assert np.corrcoef(enlarged.ravel(), large.ravel())[0, 1] > 0.8


@pytest.mark.server
def test_only_the_region_is_drawn_anew(server, tiny_files):
    workflow = api_form("inpaint_region_search")
    (found,) = (p for kind, ps in pictures(server, workflow).items() if kind.startswith("SaveImage") for p in ps)
    given = np.asarray(Image.open(server.base / "input" / INPUT_PICTURE).convert("RGB"))
    changed = np.abs(found.astype(int) - given.astype(int)).max(-1) > 1  # saving rounds down
    left, top, width, height = (DEMO_VALUES[f"Region: {name}"]["value"] for name in ("left", "top", "width", "height"))
    inside = np.zeros_like(changed)
    inside[top : top + height, left : left + width] = True
    assert not changed[~inside].any() and changed[inside].mean() > 0.5


@pytest.mark.server
def test_scored_batch_is_the_stock_batch_in_another_order(server):
    workflow = copy.deepcopy(api_form("score_a_batch"))
    decode, score = of_type(workflow, "VAEDecode"), of_type(workflow, "NSScoreImages")
    sorted_id = of_type(workflow, "PreviewImage")
    workflow["stock"] = {"class_type": "PreviewImage", "inputs": {"images": [decode, 0]}}
    assert workflow[sorted_id]["inputs"]["images"] == [score, 0]
    found = server.run(workflow)

    def load(node_id: str) -> list[bytes]:
        return [np.asarray(Image.open(io.BytesIO(server.image(entry)))).tobytes() for entry in found.outputs[node_id]["images"]]

    order = [int(index) for index in found.outputs[of_type(workflow, "PreviewAny")]["text"][0].split(",")]
    stock = load("stock")
    assert sorted(order) == list(range(8))
    assert load(sorted_id) == [stock[index] for index in order]


@pytest.mark.server
def test_the_papers_ensemble_ranks_by_three_and_asks_the_witness(server, tiny_files):
    workflow = api_form("paper_ensemble")
    found = server.run(workflow)
    report = reports_in(found.outputs[of_type(workflow, "PreviewAny")]["text"][0])
    finished = [c for c in report["candidates"] if c["status"] == "finished"]
    names = ["aesthetic score", "CLIP score", "ImageReward"]
    assert all(sorted(c["scores"]) == sorted(names) for c in finished)
    scores = np.array([[c["scores"][name] for name in names] for c in finished])
    below, equal = (op(scores[:, None], scores[None]).sum(1) for op in (np.greater, np.equal))
    ranks = below + (equal + 1) / 2  # 1 is worst, ties share their mean rank
    assert scores.std(0).min() > 0.01  # each of them tells pictures apart
    np.testing.assert_allclose([c["score"] for c in finished], ranks.mean(1), atol=1e-4)
    assert report["best"]["index"] == finished[ranks.mean(1).argmax()]["index"] != 0
    witness = report["held_out"]
    assert witness["verifier"] == "PickScore" and set(witness["scores"]) == {"0", str(report["best"]["index"])}
