#!/usr/bin/env bash
# Prove the CUDA backend on a machine with a GPU, within 8 minutes: parity of every implementation,
# a whole tiny run, speed and memory at the official sizes. Needs this checkout, torch and triton.
# Nothing is installed. Results: OUT/device_check.json and OUT/device_check.md.
#
#   benchmarks/device_check.sh [OUT] [--smoke]
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
out="$root/outputs/device_check"
if [[ $# -gt 0 && $1 != --* ]]; then out="$1"; shift; fi

# The checkout itself is the installation; it hides an installed stepvideo.
export PYTHONPATH="$root:$root/backends:$root/kernels:$root/benchmarks"
"${PYTHON:-python3}" -m stepvideo_bench.device_check --out "$out" "$@"
