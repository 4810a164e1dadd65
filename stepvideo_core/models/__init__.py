"""The models, written once for every device: DiT, Video-VAE, Step-LLM, Hunyuan-CLIP."""
