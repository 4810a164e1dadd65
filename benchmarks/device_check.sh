#!/usr/bin/env bash
# Prove the cuda or the npu backend on a machine that has the device, within 8 minutes: parity of
# every implementation, a whole tiny run, speed and memory at the official sizes. Needs this
# checkout, torch, and triton or torch_npu. Nothing is installed. Results: OUT/device_check.json,
# OUT/device_check.md, and OUT/evidence.json for docs/EVIDENCE.md.
#
#   benchmarks/device_check.sh [OUT] [--backend cuda|npu] [--smoke]
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
out="$root/outputs/device_check"
if [[ $# -gt 0 && $1 != --* ]]; then out="$1"; shift; fi

# The checkout itself is the installation; it hides an installed stepvideo.
# torch would import an installed torch_npu by itself, and die if CANN is missing; the backend says so.
export TORCH_DEVICE_BACKEND_AUTOLOAD="${TORCH_DEVICE_BACKEND_AUTOLOAD:-0}"
export PYTHONPATH="$root:$root/backends:$root/kernels:$root/benchmarks"
"${PYTHON:-python3}" -m stepvideo_bench.device_check --out "$out" "$@"
