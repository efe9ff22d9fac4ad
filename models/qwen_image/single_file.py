"""The names of Qwen-Image's tensors in the files of ComfyUI and stable-diffusion.cpp: those of diffusers."""

from ..base.single_file import SingleFileLayout, SingleFileNames

LAYOUTS = {"QwenImageTransformer2DModel": SingleFileLayout("qwen_image", SingleFileNames())}
