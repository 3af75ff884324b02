"""The real server starts with the pack in it, and both know each other."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.server


def test_no_pack_failed_to_load(server):
    assert "IMPORT FAILED" not in server.log()
    assert "comfy_entrypoint in" not in server.log()  # what the loader says when an extension raises
    assert "custom_nodes/noise-search" in server.log()


def test_nodes_are_offered(server):
    from node_api import NODES

    offered = server.object_info()
    assert set(NODES) <= set(offered)
    for node_id in NODES:
        assert offered[node_id]["python_module"] == "custom_nodes.noise-search"


def test_help_is_served(server):
    from node_api import NODES

    for node_id in NODES:
        assert server.get(f"/extensions/noise-search/docs/{node_id}/en.md").strip()


def test_runs_a_workflow_and_shows_its_picture(server):
    size = {"width": 16, "height": 8, "batch_size": 1}
    workflow = {
        "1": {"class_type": "EmptyImage", "inputs": {**size, "color": 255}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    result = server.run(workflow)
    assert server.image(result.outputs["2"]["images"][0]).startswith(b"\x89PNG")
    kinds = [kind for kind, _ in result.events]
    assert kinds.index("execution_start") < kinds.index("executed") < kinds.index("execution_success")


def test_refusal_says_why(server):
    from live import Refused

    with pytest.raises(Refused) as refused:
        server.queue({"1": {"class_type": "PreviewImage", "inputs": {}}})
    assert "1" in refused.value.answer["node_errors"]
