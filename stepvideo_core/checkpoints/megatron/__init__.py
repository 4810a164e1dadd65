"""Checkpoints of Megatron-style training: one file per tensor-parallel rank and pipeline stage."""
