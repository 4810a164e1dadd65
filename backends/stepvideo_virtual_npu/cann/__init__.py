"""A stand-in for the CANN runtime: generated libraries that the real torch_npu links against."""
