"""The CUDA backend: flash-attn, cuDNN and torch's attention, our Triton kernels, sliced cuDNN
convolutions. Importing it imports neither triton nor flash_attn."""
