"""plan, backends, doctor, parity, inspect, convert, bench."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepvideo_core.checkpoints.bundled import SHIPPED_TINY
from stepvideo_core.ops import CONTRACTS
from stepvideo_core.testing import CASES

from .conftest import Cli


def test_help_lists_every_command(cli: Cli) -> None:
    done = cli("--help")
    assert done.code == 0
    for command in (
        *("run", "decode", "plan", "backends", "doctor", "parity"),
        *("eval", "bench", "inspect", "convert"),
    ):
        assert f" {command} " in done.stdout
    assert cli("--version").stdout.startswith("stepvideo ")


def test_plan(cli: Cli, tiny_checkpoint: Path) -> None:
    done = cli("plan", "--model", tiny_checkpoint, "--json")
    assert done.code == 0
    rows = done.json["sites"]
    assert {row["op"] for row in rows} == set(CONTRACTS) - {"rope_3d"}
    assert all(set(row) >= {"op", "site", "impl", "reasons"} for row in rows)
    table = cli("plan", "--model", tiny_checkpoint, "--backend", "numpy64")
    assert "numpy64:rowwise" in table.stdout
    assert "numpy64: has no group_norm_silu" in table.stdout


def test_plan_composes_a_fusion_from_parts(cli: Cli, tiny_checkpoint: Path) -> None:
    """numpy64 has RMSNorm and RoPE but not their fusion."""
    rows = cli("plan", "--model", tiny_checkpoint, "--backend", "numpy64", "--json").json["sites"]
    impls = {(row["op"], row["site"]): row["impl"] for row in rows}
    assert impls["qk_norm_rope", "dit.self"] == "composed"
    assert impls["rms_norm", "dit.self"] == "numpy64:numpy"
    assert impls["rope_3d", "dit.self"] == "numpy64:complex"


def test_plan_without_fallback(cli: Cli, tiny_checkpoint: Path) -> None:
    done = cli("plan", "--model", tiny_checkpoint, "--backend", "numpy64", "--no-fallback")
    assert done.code == 2
    assert "without a fallback" in done.complaint


def test_backends(cli: Cli) -> None:
    done = cli("backends", "--json")
    rows = {row["name"]: row for row in done.json["backends"]}
    assert rows["reference"]["available"]
    assert set(rows["reference"]["implements"]) == set(CONTRACTS)
    assert rows["numpy64"]["implements"]["attention"] == ["rowwise"]
    assert done.json["failures"] == {}
    assert "numpy64" in cli("backends").stdout


def test_backends_show_what_a_missing_library_costs(
    cli_process: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPVIDEO_CUDA_INTERPRET", "1")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    rows = {row["name"]: row for row in cli_process("backends", "--json").json["backends"]}
    assert rows["cuda"]["available"], rows["cuda"]
    assert rows["cuda"]["implements"]["attention"] == ["triton"]
    (reason,) = rows["cuda"]["refusals"]["attention=cuda:flash2"][:1]
    assert "flash_attn is not installed" in reason


def test_doctor_tells_a_backends_devices(cli_process: Cli) -> None:
    prelude = """
    from stepvideo_core.plugins import load_registry
    from stepvideo_core.dispatch import Backend
    load_registry().add(Backend(name="mine", device_type="cpu", why_not=list, load=list,
                                rank=None, describe=lambda: ["mine:0, 7 GiB, driver 1.2"]))
    """
    done = cli_process("doctor", "--json", prelude=prelude)
    details = {row["subject"]: row["detail"] for row in done.json["findings"]}
    assert "driver 1.2" in details["mine"]


def test_doctor(cli: Cli) -> None:
    done = cli("doctor", "--json")
    assert done.code == 0, done.stdout
    findings = {(row["area"], row["subject"]): row for row in done.json["findings"]}
    assert done.json["ok"]
    assert findings["environment", "torch"]["status"] == "ok"
    assert findings["video", ".mp4"]["status"] == "ok"
    tested = {subject.split()[0] for area, subject in findings if area == "operators"}
    assert tested >= set(CONTRACTS) - {"rope_3d"}
    assert "everything that is here works" in cli("doctor").stderr


def test_doctor_finds_a_lying_operator(cli_process: Cli) -> None:
    """A kernel that is off by a percent is broken, with the command that works around it."""
    prelude = """
    from stepvideo_reference import attention
    from dataclasses import replace
    impls = []
    for impl in attention.IMPLS:
        if impl.name == "sdpa":
            fn = impl.fn
            def lying(q_BSHD, k_BTGD, v_BTGD, scale, causal, key_lengths, slopes_H):
                return fn(q_BSHD, k_BTGD, v_BTGD, scale, causal, key_lengths, slopes_H) * 1.01
            impl = replace(impl, fn=lying)
        impls.append(impl)
    attention.IMPLS = tuple(impls)
    """
    done = cli_process("doctor", "--json", prelude=prelude)
    assert done.code == 2
    broken = [row for row in done.json["findings"] if row["status"] == "broken"]
    assert [row["subject"] for row in broken] == ["attention reference:sdpa"]
    assert "--op attention=reference:eager" in broken[0]["mend"]


def test_parity(cli: Cli) -> None:
    done = cli("parity", "--backend", "numpy64", "--op", "rms_norm", "--json")
    assert done.code == 0
    rows = done.json["results"]
    count = sum(1 for case in CASES if case.op.name == "rms_norm")
    assert len(rows) == 4 * count
    keys = {"op", "site", "impl", "dtype", "case", "status", "error", "budget", "reasons"}
    assert all(set(row) == keys for row in rows)
    table = cli("parity", "--backend", "reference", "--op", "rope_3d", "--dtype", "float32")
    assert "reference:eager" in table.stdout
    assert "0 failed" in table.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "nope"], "no backend 'nope'"),
        (["--op", "nope"], "no operator 'nope'"),
        (["--dtype", "int8"], "--dtype 'int8' is none of"),
        (["--virtual"], "--virtual needs --backend"),
        (["--virtual", "--backend", "reference"], "no virtual device for backend 'reference'"),
    ],
)
def test_parity_refuses(cli: Cli, arguments: list[str], message: str) -> None:
    done = cli("parity", *arguments)
    assert done.code == 2
    assert message in done.complaint


def test_convert_and_inspect(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    done = cli("convert", "untrained", "--preset", "tiny", folder)
    assert done.code == 0
    assert "untrained" in done.stderr
    report = cli("inspect", folder, "--json")
    assert report.code == 0, report.stdout
    text = cli("inspect", folder)
    assert "untrained" in text.stderr and "transformer" in text.stdout
    config = folder / "transformer" / "config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"num_layers": values["num_layers"] + 1}))
    broken = cli("inspect", folder)
    assert broken.code == 2
    assert "transformer_blocks.3." in broken.stderr
    again = cli("convert", "untrained", folder)
    assert again.code == 2
    assert "files in it" in again.complaint
    assert "--preset 'huge'" in cli("convert", "untrained", "--preset", "huge", "x").complaint
    assert cli("inspect", tmp_path / "absent").code == 2


def test_bench_model(cli: Cli, tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    options = ["--preset", "tiny", "--only", "dit", "--repeats", 1, "--profile"]
    done = cli("bench", "model", *options, "--json", "--output", output)
    assert done.code == 0, done.stderr
    (row,) = done.json["rows"]
    assert row["median_s"] > 0
    assert row["flops"] > 1e6
    assert row["peak_bytes"] > row["start_bytes"] > 0
    assert row["tokens_per_second"] > 0 and row["ceiling_pct"] > 0
    assert row["plan"] and row["environment"]["versions"]["torch"]
    assert 0 < sum(line["share"] for line in row["profile"]) <= 1.0001
    assert json.loads(output.read_text()) == done.json
    assert "--preset 'x'" in cli("bench", "model", "--preset", "x").complaint


def test_the_default_model_ships_and_is_trained(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "a", "--dry-run", "--json", "--output", tmp_path / "v.mp4")
    assert done.code == 0
    assert done.json["trained"] is True
    files = [path for path in SHIPPED_TINY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20e6
    assert cli("inspect", "tiny").code == 0
