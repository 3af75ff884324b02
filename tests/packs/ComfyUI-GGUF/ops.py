"""Layers that hold 8-bit weights and decode them in each call, LoRAs included."""

from __future__ import annotations

import comfy.lora
import comfy.ops
import torch


class GGMLTensor(torch.Tensor):
    """A weight in 8 bits: rows of whole numbers, with a scale each; what is patched into it waits beside it."""

    @staticmethod
    def quantized(weight: torch.Tensor) -> GGMLTensor:
        scale = weight.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 127
        made = torch.Tensor._make_subclass(GGMLTensor, (weight / scale).round().to(torch.int8))
        made.scale, made.patches = scale, []
        return made

    def detach(self) -> GGMLTensor:
        return self  # as a parameter it keeps what is beside it


class GGMLLayer(torch.nn.Module):
    comfy_cast_weights = True

    def forward_comfy_cast_weights(self, input, *args, **kwargs):
        if not isinstance(self.weight, GGMLTensor):
            return super().forward_comfy_cast_weights(input, *args, **kwargs)
        weight = self.weight.as_subclass(torch.Tensor).to(input.dtype) * self.weight.scale
        for patches, key in self.weight.patches:
            weight = comfy.lora.calculate_weight(patches, weight, key)
        return torch.nn.functional.linear(input, weight, self.bias)


class GGMLOps(comfy.ops.manual_cast):
    class Linear(GGMLLayer, comfy.ops.manual_cast.Linear):
        pass
