"""One run on a machine with an accelerator that proves its backend: parity, speed, memory.

`benchmarks/device_check.sh [OUT]` runs it; it needs the repository, torch, and triton or torch_npu,
and writes OUT/device_check.json, OUT/device_check.md and OUT/evidence.json after every section, so
that a run cut short keeps what it has. `--smoke` runs every section at toy sizes to prove the
script: the cuda backend on the CPU, under Triton's interpreter, the npu backend on a device,
virtual or real. Its figures mean nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from stepvideo_ascend.backend import npu_backend
from stepvideo_bench.device_kernels import kernel_rows
from stepvideo_bench.device_measure import Bench, Row, environment, probe
from stepvideo_bench.device_models import accuracy_rows, speed_rows, tiny_rows, vae_rows
from stepvideo_core.dispatch import BackendRegistry
from stepvideo_core.testing import CASES, run_parity
from stepvideo_core.testing.evidence import parity_record
from stepvideo_core.testing.parity import ParityResult
from stepvideo_cuda.backend import cuda_backend
from stepvideo_reference.backend import reference_backend

# What the smoke run judges: one case of an operator, for the interpreter is slow.
_SMOKE_OPS = ("rms_norm", "gelu_tanh", "attention")

BACKENDS = ("cuda", "npu")

Section = Callable[[Bench, BackendRegistry], Iterator[Row]]


def _probes(bench: Bench, registry: BackendRegistry) -> Iterator[Row]:
    yield from probe(bench)


def _parity(bench: Bench, registry: BackendRegistry) -> Iterator[Row]:
    """Every implementation, case and dtype on the device, judged as everywhere."""
    if bench.real:
        results = run_parity(registry, backends=[bench.backend])
    else:
        first = {case.op.name: case for case in reversed(CASES) if case.op.name in _SMOKE_OPS}
        results = run_parity(
            registry, backends=[bench.backend], dtypes=[torch.float32], cases=first.values()
        )
    for result in results:
        yield result.as_json()
        if bench.time_left <= 0:
            yield {"status": "skipped", "reasons": ["no time left for the remaining cases"]}
            return


# Parity last: it compiles a few hundred kernels and takes what time is left.
SECTIONS: dict[str, Section] = {
    "probes": _probes,
    "accuracy": accuracy_rows,
    "tiny": tiny_rows,
    "speed": speed_rows,
    "vae": vae_rows,
    "kernels": kernel_rows,
    "parity": _parity,
}


def _tuned(out: Path) -> Section:
    """Our kernels again, with tuned configs, which stay in OUT/kernels.json."""

    def section(bench: Bench, registry: BackendRegistry) -> Iterator[Row]:
        from stepvideo_kernels import disable_tuning, enable_tuning

        enable_tuning(out / "kernels.json")
        try:
            yield from kernel_rows(bench, registry, only="triton")
        finally:
            disable_tuning()

    return section


def run(
    bench: Bench, registry: BackendRegistry, out: Path, sections: dict[str, Section]
) -> dict[str, Any]:
    """The given sections; a section that fails says so in its rows and the others go on."""
    report: dict[str, Any] = {
        "environment": environment(bench.device, registry.get(bench.backend)),
        "sections": {},
    }
    started = time.monotonic()
    for name, section in sections.items():
        rows: list[Row] = []
        report["sections"][name] = rows
        before = time.monotonic()
        try:
            if bench.time_left <= 0:
                rows.append({"status": "skipped", "reasons": ["no time left"]})
            else:
                rows.extend(section(bench, registry))
        # The report must come home whatever one section meets on an unknown machine.
        except Exception as error:  # noqa: BLE001
            rows.append({"status": "failed", "reasons": [f"{type(error).__name__}: {error}"]})
        if bench.device.type != "cpu":
            torch.accelerator.empty_cache()
        report["seconds"] = {
            **report.get("seconds", {}),
            name: round(time.monotonic() - before, 1),
            "total": round(time.monotonic() - started, 1),
        }
        (out / "device_check.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        record = evidence(report, registry)
        (out / "evidence.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
        (out / "device_check.md").write_text(markdown(report), encoding="utf-8")
    return report


def evidence(report: dict[str, Any], registry: BackendRegistry) -> dict[str, Any]:
    """What the report shows of our implementations, as `stepvideo evidence` reads it."""
    sections = report["sections"]
    results = [ParityResult.from_json(row) for row in sections.get("parity", ()) if "impl" in row]
    ours = {result.impl.split(":")[0] for result in results}
    measured = [
        (row["op"], row["impl"], row["dtype"])
        for row in sections.get("kernels", ())
        if row.get("status") == "measured" and row["impl"].split(":")[0] in ours
    ]
    return parity_record(results, registry, dict.fromkeys(measured))


def failures(report: dict[str, Any]) -> list[str]:
    """One line per row that failed."""
    return [
        f"{name}: {row.get('op', '')} {row.get('impl', '')} {row.get('dtype', '')} "
        f"{row.get('case', '')}: {'; '.join(row['reasons'])}"
        for name, rows in report["sections"].items()
        for row in rows
        if row.get("status") == "failed"
    ]


def markdown(report: dict[str, Any]) -> str:
    """The report as tables; parity as counts per implementation and dtype."""
    lines = ["# Device check", ""]
    lines += [f"- {key}: {value}" for key, value in report["environment"].items()]
    lines += [f"- seconds: {report.get('seconds', {})}", ""]
    for name, rows in report["sections"].items():
        lines += [f"## {name}", "", *_table(_counted(rows) if name == "parity" else rows), ""]
    lines += ["## failures", "", *[f"- {line}" for line in failures(report)]]
    return "\n".join(lines) + "\n"


def _counted(rows: list[Row]) -> list[Row]:
    counts: dict[tuple[str, str, str], Row] = {}
    for row in rows:
        key = (row.get("op", ""), row.get("impl", ""), row.get("dtype", ""))
        start = {
            "op": key[0],
            "impl": key[1],
            "dtype": key[2],
            "passed": 0,
            "failed": 0,
            "skipped": 0,
            "worst error / budget": 0.0,
        }
        count = counts.setdefault(key, start)
        count[row["status"]] += 1
        if row.get("error") is not None:
            share = row["error"] / row["budget"]
            count["worst error / budget"] = max(count["worst error / budget"], share)
    return list(counts.values())


def _table(rows: list[Row]) -> list[str]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    if not columns:
        return ["nothing"]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(column, "")) for column in columns) + " |")
    return lines


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "; ".join(map(str, value)).replace("|", "/")
    return str(value).replace("|", "/").replace("\n", " ")


def _problems(registry: BackendRegistry, name: str, smoke: bool) -> list[str]:
    """Why a backend cannot be checked here."""
    reasons = registry.why_not(name)
    if not reasons and not smoke and registry.get(name).device_type == "cpu":
        return ["it is interpreted on the CPU, which proves nothing about a device"]
    return reasons


def main(arguments: list[str] | None = None) -> int:
    """Run the check; 0 when nothing failed, 1 when something did, 2 when it cannot run here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/device_check"))
    parser.add_argument("--seconds", type=float, default=440.0, help="start no section after this")
    parser.add_argument("--backend", choices=BACKENDS, help="default: the one that works here")
    parser.add_argument("--smoke", action="store_true", help="toy sizes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to run, with probes")
    parser.add_argument("--tune", action="store_true", help="tune our kernels and measure again")
    options = parser.parse_args(arguments)
    # Without the plugin manager, which a bare machine need not have.
    registry = BackendRegistry()
    for backend in (reference_backend(), cuda_backend(), npu_backend()):
        registry.add(backend)
    wanted_backends = [options.backend] if options.backend else list(BACKENDS)
    problems = {name: _problems(registry, name, options.smoke) for name in wanted_backends}
    name = next((name for name, reasons in problems.items() if not reasons), None)
    if name is None:
        for name, reasons in problems.items():
            sys.stderr.write(f"the {name} backend cannot work here: {'; '.join(reasons)}\n")
        return 2
    bench = Bench(
        device=torch.device(registry.get(name).device_type),
        backend=name,
        real=not options.smoke,
        deadline=time.monotonic() + options.seconds,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = {"probes", *(options.only or SECTIONS)}
    sections = {name: section for name, section in SECTIONS.items() if name in wanted}
    if options.tune and name == "cuda":
        sections["tuned"] = _tuned(options.out)
    report = run(bench, registry, options.out, sections)
    failed = failures(report)
    files = f"{options.out}/device_check.md, device_check.json, evidence.json"
    sys.stdout.write("\n".join([f"please send: {files}", *failed]) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
