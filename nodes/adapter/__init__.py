"""ComfyUI as `search/` needs it: sessions, noise, memory, shared model calls."""
