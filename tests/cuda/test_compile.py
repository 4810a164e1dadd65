"""Every kernel compiles to machine code for real targets, by Triton's own ptxas, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepvideo_kernels import __file__ as kernels_file

# What a thread block may use on 8.6, 8.9 and 12.0, the least among supported cards.
_SMALLEST_SHARED = 99 * 1024


@pytest.mark.parametrize(
    ("target", "dtype"), [(80, "bfloat16"), (90, "bfloat16"), (120, "float16")]
)
def test_kernels_compile_and_fit(target: int, dtype: str) -> None:
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(Path(kernels_file).parents[1])
    done = subprocess.run(
        [sys.executable, script, str(target), dtype],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {row["kernel"] for row in rows} == {
        "_adaln_modulate_kernel",
        "_apply_kernel",
        "_attention_kernel",
        "_gated_residual_kernel",
        "_gelu_tanh_kernel",
        "_merge_kernel",
        "_moments_kernel",
        "_pixel_shuffle_kernel",
        "_pixel_unshuffle_kernel",
        "_qk_norm_rope_kernel",
        "_rms_norm_kernel",
        "_rope_3d_kernel",
    }
    for row in rows:
        assert row["shared"] <= _SMALLEST_SHARED, row
        # A few bytes of stack are addresses kept aside; hundreds would be spilled tiles.
        assert row["stack"] <= 16, row
        assert row["widest"] == 16, row
        # The pixel kernels read channels 8 apart, one by one; everything else moves in vectors.
        assert row["narrow"] <= 4 or row["kernel"].startswith("_pixel"), row
