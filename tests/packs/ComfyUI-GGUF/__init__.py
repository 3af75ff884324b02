"""A stand-in for city96/ComfyUI-GGUF: its folder, its files and its classes' names, with a quantization of its own."""
