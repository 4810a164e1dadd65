"""bench ops, bench compare, parity reports and evidence, as a user meets them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Cli

QUICK = ("--preset", "tiny", "--repeats", "1", "--warm-cache", "--no-compile")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def record(cli: Cli, shared: Path) -> Path:
    """A record of one operator; measured once."""
    path = shared / "record.json"
    if not path.exists():
        done = cli("bench", "ops", *QUICK, "--op", "gelu_tanh", "--output", path)
        assert done.code == 0, done.stderr
    return path


def test_ops_prints_one_object(cli: Cli) -> None:
    done = cli("bench", "ops", *QUICK, "--op", "rms_norm", "--json")
    assert done.code == 0, done.stderr
    rows = done.json["rows"]
    assert {row["impl"] for row in rows} == {"reference:eager", "numpy64:numpy"}
    needed = {"median_s", "p20_s", "p80_s", "gbs", "bound", "ceiling_pct", "speedup", "status"}
    assert all(needed | {"max_abs_error", "rel_error", "peak_bytes"} <= set(row) for row in rows)
    only = cli("bench", "ops", *QUICK, "--op", "rms_norm", "--site", "dit.cross", "--json")
    assert {row["site"] for row in only.json["rows"]} == {"dit.cross"}


def test_ops_prints_a_table(cli: Cli) -> None:
    done = cli("bench", "ops", *QUICK, "--op", "gated_residual", "--backend", "numpy64")
    assert done.code == 0
    assert "numpy64:numpy" in done.stdout and "reference:eager *" in done.stdout
    assert "roof: " in done.stderr


def test_ops_writes_every_format(cli: Cli, record: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    done = cli("bench", "ops", *QUICK, "--op", "linear", "--site", "dit.ffn", "-o", folder)
    assert done.code == 0
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        *(f"ops.{suffix}" for suffix in ("json", "jsonl", "csv", "md", "html")),
        *(
            f"figures/{name}.{kind}"
            for name in ("roofline", "bars-linear")
            for kind in ("svg", "png")
        ),
    }
    rows = json.loads((folder / "ops.json").read_text())["rows"]
    lines = list(csv.DictReader((folder / "ops.csv").open()))
    assert [line["impl"] for line in lines] == [row["impl"] for row in rows]
    assert [float(line["median_s"]) for line in lines] == [row["median_s"] for row in rows]
    header, *objects = map(json.loads, (folder / "ops.jsonl").read_text().splitlines())
    assert header["kind"] == "ops" and objects == rows
    assert "| linear | dit.ffn |" in (folder / "ops.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "huge"], "--preset 'huge' is none of 204f"),
        (["--op", "nope"], "no operator 'nope'"),
        (["--backend", "nope"], "no backend 'nope'"),
        (["--output", "x.xlsx"], "none of the known endings"),
        (["--device", "quantum"], "not a device that this torch knows"),
    ],
)
def test_ops_refuses(cli: Cli, arguments: list[str], message: str) -> None:
    done = cli("bench", "ops", *arguments)
    assert done.code == 2
    assert message in done.complaint


def test_official_sizes_are_skipped_with_numbers(cli: Cli) -> None:
    options = ("--preset", "204f", "--op", "attention", "--site", "dit.self", "--no-compile")
    done = cli("bench", "ops", *options, "--row-seconds", "0.1", "--json")
    assert done.code == 0
    rows = done.json["rows"]
    assert {row["status"] for row in rows} == {"skipped"}
    assert all(any(letter.isdigit() for letter in row["reasons"][0]) for row in rows)
    assert rows[0]["flops"] == 4 * 75_888**2 * 6144


def slowed(path: Path, factor: float) -> dict[str, Any]:
    """The record with as many samples as a verdict takes, `factor` times as long."""
    value: dict[str, Any] = json.loads(path.read_text())
    for row in value["rows"]:
        row["samples"] = [
            row["median_s"] * factor * (1 + 0.01 * (index % 3)) for index in range(12)
        ]
    return value


def test_compare(cli: Cli, record: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps(slowed(record, 1.0)))
    second.write_text(json.dumps(slowed(record, 1.2)))
    same = cli("bench", "compare", first, first)
    assert same.code == 0
    assert "no difference" in same.stderr
    slower = cli("bench", "compare", first, second, "--json")
    assert slower.code == 1
    assert slower.json["slower"] == len(slower.json["rows"]) > 0
    assert "slower" in cli("bench", "compare", first, second).stdout
    assert cli("bench", "compare", first, second, "--threshold", "30%").code == 0


def test_compare_refuses(cli: Cli, record: Path, tmp_path: Path) -> None:
    broken = tmp_path / "c.json"
    broken.write_text("{}")
    assert "no list of `rows`" in cli("bench", "compare", record, broken).complaint
    broken.write_text("{")
    assert "no JSON record" in cli("bench", "compare", record, broken).complaint
    assert "is a file" in cli("bench", "compare", record, "HEAD").complaint
    assert "neither a file nor a revision" in cli("bench", "compare", "no", "nay").complaint
    assert "write 5%" in cli("bench", "compare", record, record, "--threshold", "x").complaint


def test_parity_writes_a_report_and_a_record(cli: Cli, tmp_path: Path) -> None:
    html, record = tmp_path / "parity.html", tmp_path / "record.json"
    options = ("--backend", "numpy64", "--op", "rms_norm", "--html", html, "--record", record)
    done = cli("parity", *options, "--json")
    assert done.code == 0
    value = json.loads(record.read_text())
    assert value == done.json["record"]
    assert value["runs"] == [{"backend": "numpy64", "level": "E3", "on": "cpu"}]
    assert [entry["dtype"] for entry in value["entries"]] == [
        *("float32", "bfloat16", "float16", "float64")
    ]
    assert all(entry["passed"] and not entry["failed"] for entry in value["entries"])
    table = cli("evidence", record)
    assert table.code == 0
    assert "| `numpy64:numpy` | E3 (" in table.stdout


def test_evidence_checks_its_file(cli: Cli, record: Path, tmp_path: Path) -> None:
    parity, table = tmp_path / "parity.json", tmp_path / "EVIDENCE.md"
    cli("parity", "--backend", "reference", "--op", "gelu_tanh", "--record", parity)
    assert cli("evidence", parity, record, "-o", table).code == 0
    assert "E3 E4 (" in table.read_text()
    assert cli("evidence", parity, record, "-o", table, "--check").code == 0
    table.write_text(table.read_text().replace("E3", "E4"))
    stale = cli("evidence", parity, record, "-o", table, "--check")
    assert stale.code == 1 and "stale" in stale.stderr
    assert "--check needs" in cli("evidence", parity, "--check").complaint
    assert "is no record" in cli("evidence", table).complaint


def test_explain_for_a_device_that_is_not_here(cli: Cli, tiny_checkpoint: Path) -> None:
    options = ("plan", "--explain", "--model", tiny_checkpoint, "--assume", "h100", "--steps", 4)
    done = cli(*options, "--json")
    assert done.code == 0, done.stderr
    found = done.json["explanation"]
    assert done.json["dtype"] == "bfloat16" and done.json["settings"]["steps"] == 4
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert list(stages) == ["step_llm", "clip", "text keys", "denoise", "decode"]
    assert stages["denoise"]["times"] == 8
    assert found["fits"] and found["roof_s"] < found["expected_s"]
    assert all(op["bound"] in ("compute", "memory") for op in stages["denoise"]["ops"])
    table = cli(*options)
    assert "NVIDIA H100" in table.stderr and "linear@dit.ffn" in table.stdout
    assert "not checked" in table.stderr


def test_explain_here_uses_and_checks_measurements(
    cli: Cli, tiny_checkpoint: Path, record: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model.json"
    only = ("--only", "block", "--only", "dit", "--repeats", 1)
    assert cli("bench", "model", "--preset", "tiny", *only, "-o", model).code == 0
    row = json.loads(record.read_text())
    for entry in row["rows"]:
        entry |= {"ceiling_pct": 50.0, "above_ceiling": False, "planned": True}
    shares = tmp_path / "shares.json"
    shares.write_text(json.dumps(row))
    options = ("--measured", shares, "--measured", model, "--frames", 17, "--steps", 1)
    done = cli("plan", "--explain", "--model", tiny_checkpoint, *options, "--json")
    assert done.code == 0, done.stderr
    (denoise,) = (s for s in done.json["explanation"]["stages"] if s["name"] == "denoise")
    ops = {(op["op"], op["site"]): op for op in denoise["ops"]}
    assert ops["gelu_tanh", "dit.ffn"]["share"] == 0.5 and ops["gelu_tanh", "dit.ffn"]["measured"]
    assert ops["attention", "dit.self"]["impl"] == "reference:sdpa"
    assert [check["what"] for check in done.json["checks"]] == ["dit at tiny, float32"]
    table = cli("plan", "--explain", "--model", tiny_checkpoint, *options)
    assert "checked: dit at tiny" in table.stderr and "error " in table.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--explain", "--assume", "abacus"], "--assume 'abacus' is none of a100"),
        (["--assume", "h100"], "add it"),
        (["--frames", "17"], "add it"),
        (["--explain", "--assume", "h100", "--height", "7"], "not a multiple of 16"),
        (["--explain", "--measured", "absent.json"], "cannot be read"),
        (["--explain", "--assume", "910b2", "--dtype", "float32"], "no public rate"),
    ],
)
def test_explain_refuses(
    cli: Cli, tiny_checkpoint: Path, arguments: list[str], message: str
) -> None:
    done = cli("plan", "--model", tiny_checkpoint, *arguments)
    assert done.code == 2
    assert message in done.complaint
