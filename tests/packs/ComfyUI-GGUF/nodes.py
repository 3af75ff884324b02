"""The patcher of models with such layers: what is patched is kept beside the weights and applied where they are decoded."""

from __future__ import annotations

import comfy.model_patcher
import comfy.utils
import torch

from .ops import GGMLOps, GGMLTensor


class GGUFModelPatcher(comfy.model_patcher.ModelPatcher):
    def patch_weight_to_device(self, key, device_to=None, inplace_update=False, *args, **kwargs):
        weight = comfy.utils.get_attr(self.model, key)
        if not isinstance(weight, GGMLTensor):
            return super().patch_weight_to_device(key, device_to, inplace_update, *args, **kwargs)
        weight.patches = [(self.patches[key], key)] if key in self.patches else []

    def unpatch_model(self, device_to=None, unpatch_weights=True):
        if unpatch_weights:
            for weight in self.model.parameters():
                if isinstance(weight, GGMLTensor):
                    weight.patches = []
        return super().unpatch_model(device_to=device_to, unpatch_weights=unpatch_weights)

    def load(self, *args, force_patch_weights=False, **kwargs):
        super().load(*args, force_patch_weights=True, **kwargs)

    def clone(self, *args, **kwargs):
        source, self.__class__ = self.__class__, GGUFModelPatcher
        made = super().clone(*args, **kwargs)
        made.__class__, self.__class__ = GGUFModelPatcher, source
        return made


def quantize(patcher):
    """Turn the Linear layers of a model into ones with 8-bit weights; return its patcher."""
    for module in patcher.model.diffusion_model.modules():
        if type(module).__name__ == "Linear":
            module.__class__ = GGMLOps.Linear
            module.weight = torch.nn.Parameter(GGMLTensor.quantized(module.weight.data), requires_grad=False)
    return GGUFModelPatcher.clone(patcher)
