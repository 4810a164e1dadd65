"""The device `npu:0` in host memory: native operators computed by torch's CPU kernels."""
