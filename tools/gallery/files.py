"""The model files that the examples name, as the page's download dialog wants them: name, address, folder in models/.

Those of diffusion models are named, placed and published as in ComfyUI's own templates of the same model.
"""

from __future__ import annotations

ModelFile = dict[str, str]


def hugging_face(directory: str, repository: str, path: str, name: str = "") -> ModelFile:
    """Return a file of a Hugging Face repository; with a name where it is to be saved under another."""
    url = f"https://huggingface.co/{repository}/resolve/main/{path}"
    return {"name": name or path.rsplit("/", 1)[-1], "url": url, "directory": directory}


SD15 = hugging_face("checkpoints", "Comfy-Org/stable-diffusion-v1-5-archive", "v1-5-pruned-emaonly-fp16.safetensors")
SDXL = hugging_face("checkpoints", "stabilityai/stable-diffusion-xl-base-1.0", "sd_xl_base_1.0.safetensors")

FLUX = hugging_face("diffusion_models", "Comfy-Org/flux1-dev", "flux1-dev.safetensors")
CLIP_L = hugging_face("text_encoders", "comfyanonymous/flux_text_encoders", "clip_l.safetensors")
T5 = hugging_face("text_encoders", "comfyanonymous/flux_text_encoders", "t5xxl_fp16.safetensors")
FLUX_VAE = hugging_face("vae", "Comfy-Org/Lumina_Image_2.0_Repackaged", "split_files/vae/ae.safetensors")

Z_IMAGE_REPOSITORY = "Comfy-Org/z_image_turbo"
Z_IMAGE = hugging_face("diffusion_models", Z_IMAGE_REPOSITORY, "split_files/diffusion_models/z_image_turbo_bf16.safetensors")
Z_IMAGE_TEXT = hugging_face("text_encoders", Z_IMAGE_REPOSITORY, "split_files/text_encoders/qwen_3_4b.safetensors")
Z_IMAGE_VAE = hugging_face("vae", Z_IMAGE_REPOSITORY, "split_files/vae/ae.safetensors")

QWEN_REPOSITORY = "Comfy-Org/Qwen-Image_ComfyUI"
QWEN = hugging_face("diffusion_models", QWEN_REPOSITORY, "split_files/diffusion_models/qwen_image_fp8_e4m3fn.safetensors")
QWEN_TEXT = hugging_face("text_encoders", QWEN_REPOSITORY, "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors")
QWEN_VAE = hugging_face("vae", QWEN_REPOSITORY, "split_files/vae/qwen_image_vae.safetensors")
QWEN_LIGHTNING = hugging_face("loras", "lightx2v/Qwen-Image-Lightning", "Qwen-Image-Lightning-8steps-V1.0.safetensors")

WAN_REPOSITORY = "Comfy-Org/Wan_2.1_ComfyUI_repackaged"
WAN = hugging_face("diffusion_models", WAN_REPOSITORY, "split_files/diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors")
WAN_TEXT = hugging_face("text_encoders", WAN_REPOSITORY, "split_files/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors")
WAN_VAE = hugging_face("vae", WAN_REPOSITORY, "split_files/vae/wan_2.1_vae.safetensors")

CLIP = hugging_face("clip_vision", "openai/clip-vit-large-patch14", "model.safetensors", "clip-vit-large-patch14.safetensors")
PICK_SCORE = hugging_face("clip_vision", "yuvalkirstain/PickScore_v1", "model.safetensors", "PickScore_v1.safetensors")
IMAGE_REWARD = hugging_face("verifiers", "THUDM/ImageReward", "ImageReward.pt")
AESTHETIC = {
    "name": "sac+logos+ava1-l14-linearMSE.pth",
    "url": "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth",
    "directory": "verifiers",
}
