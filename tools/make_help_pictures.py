"""The pictures of the help pages: `web/docs/<NodeId>/<NodeId>.webp`, each node as ComfyUI's page draws it.

python tools/make_help_pictures.py                    all nodes
python tools/make_help_pictures.py NSSearchSampler    only these

Needs what the browser tests need. A page shows its picture as `![...](<NodeId>/<NodeId>.webp)`: ComfyUI's help panel reads
relative addresses from `docs/`, not from the page's own folder.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from pack import use_test_helpers
from PIL import Image
from playwright.sync_api import sync_playwright
from source import ROOT

use_test_helpers()

from live import Server
from webui import FLAGS, WebUI, find_browser

DOCS = ROOT / "web" / "docs"
SHARPNESS = 1.5  # device pixels per pixel of the page
MARGIN = 12
COLORS = 128  # text stays crisp in a lossless picture of 20 kB
BARE = {
    "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
    "Comfy.NodeBadge.NodeLifeCycleBadgeMode": "None",
    "Comfy.Minimap.Visible": False,
}
# What a user would choose, in the place of names that depend on the files at hand.
CHOSEN = {
    "NSAestheticScore": {"model_name": "sac+logos+ava1-l14-linearMSE.pth", "clip_name": "clip-vit-large-patch14.safetensors"},
    "NSClassifierLogit": {"model_name": "dinov2-base-imagenet1k-1-layer", "class_name": "golden retriever"},
    "NSHPSv2": {"model_name": "HPS_v2.1_compressed.pt"},
    "NSHPSv3": {"model_name": "HPSv3.safetensors", "base_model": "Qwen2-VL-7B-Instruct"},
    "NSImageReward": {"model_name": "ImageReward.pt"},
    "NSObjectCheck": {"model_name": "owlv2-base-patch16-ensemble", "checks": "a red cup\n2 cats\nno dog"},
    "NSPickScore": {"model_name": "PickScore_v1.safetensors"},
    "NSSigLIPScore": {"model_name": "siglip2-so400m-patch14-384"},
    "NSTextAccuracy": {"text": "OPEN 24h"},
    "NSUnifiedReward": {"model_name": "UnifiedReward-2.0-qwen3vl-2b"},
    "NSVLMJudge": {"model_name": "Qwen2.5-VL-3B-Instruct"},
    "NSZeroShotClass": {"class_name": "dog", "other_classes": "cat\nwolf\nfox"},
}

# A node alone on the canvas, at a place that no menu covers; what comes back is its rectangle on the page.
DRAW = """async ([type, chosen, margin]) => {
    app.graph.clear();
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    for (const [name, value] of Object.entries(chosen)) node.widgets.find((widget) => widget.name === name).value = value;
    node.setSize([Math.max(node.size[0], 280), node.size[1]]);  // no title is cut off
    const title = LiteGraph.NODE_TITLE_HEIGHT;
    const view = app.canvas.ds;
    view.scale = 1;
    view.offset = [400 - node.pos[0], 120 + title - node.pos[1]];
    const frame = () => new Promise(requestAnimationFrame);
    for (let frames = 0; frames < 4; frames += 1) {
        app.canvas.setDirty(true, true);
        await frame();
    }
    const widgets = (node.widgets ?? []).map((widget) => widget.element).filter(Boolean);
    await Promise.all(widgets.flatMap((element) => [...element.querySelectorAll('img[src]')]).map((image) => image.decode()));
    while (widgets.some((element) => !element.getBoundingClientRect().height)) await frame();
    const area = app.canvas.canvas.getBoundingClientRect();
    return {x: area.left + 400 - margin, y: area.top + 120 - margin,
            width: node.size[0] + 2 * margin, height: node.size[1] + title + 2 * margin};
}"""


def draw(page: Any, node_id: str) -> Path:
    """Write a node's picture and return its path."""
    rectangle = page.evaluate(DRAW, [node_id, CHOSEN.get(node_id, {}), MARGIN])
    picture = Image.open(io.BytesIO(page.screenshot(clip=rectangle))).convert("RGB")
    path = DOCS / node_id / f"{node_id}.webp"
    few_colors = picture.quantize(COLORS, dither=Image.Dither.NONE).convert("RGB")
    few_colors.save(path, lossless=True, quality=100, method=6)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nodes", nargs="*", default=sorted(path.name for path in DOCS.iterdir()), help="node ids; all without")
    wanted = parser.parse_args().nodes
    with Server() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        context = browser.new_context(viewport={"width": 1400, "height": 1600}, device_scale_factor=SHARPNESS)
        server.post(
            "/settings",
            {
                "Comfy.NodeBadge.NodeSourceBadgeMode": "None",
                "Comfy.NodeBadge.NodeLifeCycleBadgeMode": "None",
                "Comfy.Minimap.Visible": False,
            },
        )
        page = WebUI(context.new_page(), server).page
        for node_id in wanted:
            path = draw(page, node_id)
            sys.stdout.write(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.1f} kB\n")
        browser.close()


if __name__ == "__main__":
    main()
