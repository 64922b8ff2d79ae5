"""What a run found, as JSON, as tables, as sentences, and as a picture."""

from __future__ import annotations

import os
import platform
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterator
from importlib import metadata, util
from typing import Any
from xml.sax.saxutils import escape

from benchmark.figures import FIGURES
from benchmark.measure import AGREEMENT, Result, ratios
from benchmark.systems import OURS, SYSTEMS
from benchmark.workloads import Workload

PACKAGES = ("torch", "sentence-transformers", "transformers", "onnxruntime", "openvino", "ctranslate2", "faiss-cpu")
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")
PERCENTILE_CALLS = 20
"""A workload of at least so many calls is reported by the call, with the 99th percentile; others by sentences per second."""


def machine(threads: int) -> dict[str, Any]:
    """What the figures were taken on."""
    import torch

    lscpu = ""
    if shutil.which("lscpu"):
        english = os.environ | {"LC_ALL": "C"}
        lscpu = subprocess.run(["lscpu"], check=True, capture_output=True, text=True, env=english).stdout
    name = re.search(r"^Model name:\s*(.+)$", lscpu, re.MULTILINE)
    flags = set(lscpu.lower().split())
    return {
        "processor": name[1] if name else platform.processor() or platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "limited_by": {name: os.environ[name] for name in LIMITS if name in os.environ},
        "cores": os.cpu_count(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {
            name: metadata.version(name) for name in PACKAGES if util.find_spec(name.removesuffix("-cpu").replace("-", "_"))
        },
    }


def summary(results: dict[str, dict[str, Result]], workloads: dict[str, Workload]) -> dict[str, Any]:
    """For each workload and system: seconds, sentences per second, the 99th percentile, the ratio to minisbert."""
    found: dict[str, Any] = {}
    for workload, systems in results.items():
        rows = found[workload] = {}
        calls = workloads[workload].calls
        sentences = statistics.median(len(call) for call in calls)
        for name, result in systems.items():
            rounds = result.medians()
            middle = statistics.median(rounds)
            row: dict[str, Any] = {"seconds": middle, "per_second": sentences / middle, "way": result.way, "tried": result.tried}
            if result.difference is not None:
                row["difference"] = result.difference
            if len(calls) >= PERCENTILE_CALLS:
                row["p99"] = result.percentile(99)
            if "minisbert" in systems:
                row["ratio"] = ratios(systems["minisbert"].medians(), rounds)
            row["rounds"], row["others"] = rounds, result.others
            rows[name] = row
    return found


def table(figures: dict[str, Any]) -> str:
    """Markdown: one row for each system, one column for each workload."""
    names = list(dict.fromkeys(name for rows in figures.values() for name in rows))
    lines = ["| system | " + " | ".join(figures) + " |", "|---" * (len(figures) + 1) + "|"]
    for name in names:
        cells = []
        for rows in figures.values():
            row = rows[name]
            cell = f"{row['per_second']:.0f}/s"
            if "p99" in row:
                cell = f"{row['seconds'] * 1000:.2f} ms (p99 {row['p99'] * 1000:.2f})"
            if "ratio" in row:
                cell += ", {median:.2f} [{low:.2f}–{high:.2f}]".format(**row["ratio"])
            cells.append(cell)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def goals(figures: dict[str, Any]) -> Iterator[str]:
    """A line for each workload: how many times faster we are than the best peer and sentence-transformers, and the limit."""
    for workload, rows in figures.items():
        said = []
        for precision, ours in OURS.items():
            peers = [name for name, row in SYSTEMS.items() if row.peer and row.precision == precision and name in rows]
            if ours in rows and peers:
                against = {name: ratios(rows[ours]["rounds"], rows[name]["rounds"])["median"] for name in peers}
                best = min(against, key=against.__getitem__)
                said.append(f"{ours} {against[best]:.2f} × the best {precision} peer ({best}: {rows[best]['way']})")
        if "ratio" in rows.get("sentence-transformers", {}):
            said.append(f"{rows['sentence-transformers']['ratio']['median']:.2f} × sentence-transformers")
        if "ratio" in rows.get("gemm", {}):
            said.append(f"{1 / rows['gemm']['ratio']['median']:.2f} × the time of its own products")
        if said:
            yield f"{workload}: " + "; ".join(said)


def show(report: dict[str, Any]) -> None:
    """Prints the report."""
    about = report["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    limits = "".join(f", limited by {name}={value}" for name, value in about["limited_by"].items())
    flags = " ".join(about["flags"]) or "none known"
    print(f"{report['model']}, {about['threads']} of {about['cores']} cores, {report['clock']} time")
    print(f"{about['processor']}, PyTorch uses {about['instructions']}{limits}; flags of the processor: {flags}")
    print(f"Python {about['python']}, {versions}")
    for name, workload in report["workloads"].items():
        each = workload["tokens"] / workload["texts"]
        print(f"{name}: {workload['texts']} texts in {workload['calls']} calls, {each:.1f} tokens each")
    figures = report["figures"]
    if figures:
        print("\nspeed, and how many times faster minisbert is: median of the rounds [lowest–highest]\n")
        print(table(figures))
    lines = [line for name, found in report["processes"].items() for line in FIGURES[name].lines(found)]
    print("\n" + "\n".join([*goals(figures), *lines]))
    if not figures:
        return
    for precision, (measure, _) in AGREEMENT.items():
        differences = [(row.get("difference", 0), name) for rows in figures.values() for name, row in rows.items()]
        most = max(((value, name) for value, name in differences if SYSTEMS[name].precision == precision), default=None)
        if most:
            print(f"{precision} vectors against the first system's: {measure} {most[0]:.1e} ({most[1]})")
    print(f"Everything else on the machine kept up to {report['disturbance']:.2f} cores busy during the turns.")
    if report["disturbance"] > 0.1:
        print("That is too much for figures to be trusted: stop other programs, and measure again.")


# ------------------------------------------------------------------------------------------------------------------- picture

COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#8d6b94", "#a3c4bc", "#e9c9a0", "#c9b6d4", "#7f9c3b", "#555555")


def plot(figures: dict[str, Any], title: str) -> str:
    """An SVG: a group of bars for each workload, each bar the speed of a system where minisbert's is 1."""
    names = list(dict.fromkeys(name for rows in figures.values() for name in rows))
    wide, high, bar = 80 + len(figures) * (len(names) * 14 + 24), 320, 14
    speeds = {(w, n): 1 / row["ratio"]["median"] for w, rows in figures.items() for n, row in rows.items() if "ratio" in row}
    most = max([1.2, *speeds.values()])
    size = f"0 0 {max(wide, 640)} {high + 60 + 16 * len(names)}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="11">',
        f'<text x="40" y="16" font-size="13">{escape(title)}</text>',
    ]
    for level in [step / 4 for step in range(int(most * 4) + 1)]:
        y = high - level / most * (high - 40)
        stroke = "#333" if level in (0, 1) else "#ddd"
        parts.append(f'<path d="M40 {y:.1f}H{wide - 20}" stroke="{stroke}"/><text x="12" y="{y + 4:.1f}">{level:.2f}</text>')
    x = 52
    for workload in figures:
        for index, name in enumerate(names):
            speed = speeds.get((workload, name), 0)
            tall = speed / most * (high - 40)
            parts.append(
                f'<rect x="{x + index * bar}" y="{high - tall:.1f}" width="{bar - 2}" height="{tall:.1f}" '
                f'fill="{COLOURS[index % len(COLOURS)]}"><title>{name}, {workload}: {speed:.2f}</title></rect>'
            )
        parts.append(f'<text x="{x}" y="{high + 16}">{workload}</text>')
        x += len(names) * bar + 24
    for index, name in enumerate(names):
        y = high + 34 + 16 * index
        colour = COLOURS[index % len(COLOURS)]
        parts.append(f'<rect x="40" y="{y}" width="10" height="10" fill="{colour}"/><text x="56" y="{y + 9}">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])
