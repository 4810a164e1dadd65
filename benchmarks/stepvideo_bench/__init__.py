"""Benchmarks of stepvideo on this machine, with plan and environment beside each figure."""
