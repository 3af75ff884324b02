"""HTTP routes and websocket messages for ComfyUI's page."""
