"""Measurements and benchmarks. Not part of the node pack: nothing here is imported by ComfyUI."""
