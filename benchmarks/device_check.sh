#!/usr/bin/env bash
# Prove the CUDA backend on a machine with a GPU, within 8 minutes: parity of every implementation,
# a whole tiny run, speed and memory at the official sizes. Needs this checkout, torch, triton and
# pluggy, which is pure Python: for a machine without network, bring it along in the checkout with
# `pip install --target outputs/site pluggy`. Nothing is installed. Results: OUT/device_check.json
# and OUT/device_check.md.
#
#   benchmarks/device_check.sh [OUT] [--smoke]
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
out="$root/outputs/device_check"
if [[ $# -gt 0 && $1 != --* ]]; then out="$1"; shift; fi

# The checkout itself is the installation: its packages on the path, and the entry points that
# plugins are found by, as an installer would write them. It hides an installed stepvideo.
site="$(mktemp -d)"
trap 'rm -rf "$site"' EXIT
mkdir "$site/stepvideo-0.dist-info"
printf 'Metadata-Version: 2.1\nName: stepvideo\nVersion: 0\n' \
    > "$site/stepvideo-0.dist-info/METADATA"
printf '[stepvideo.backends]\ncuda = stepvideo_cuda.plugin\nreference = stepvideo_reference.plugin\n' \
    > "$site/stepvideo-0.dist-info/entry_points.txt"
export PYTHONPATH="$root:$root/backends:$root/kernels:$root/benchmarks:$site:$root/outputs/site"
"${PYTHON:-python3}" -m stepvideo_bench.device_check --out "$out" "$@"
