"""The command: `python scripts/benchmark`."""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # Python puts this folder on the path, where the folder above is needed
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmark.exports import EXPORTS, FAMILIES, MODELS, checkpoint, exports_folder, make_export, read_json, write_json
from benchmark.figures import FIGURES, Request
from benchmark.interface import CLOCKS, Setting
from benchmark.measure import compare
from benchmark.report import machine, plot, show, summary
from benchmark.search import SIZES, Size
from benchmark.systems import SYSTEMS
from benchmark.workloads import SENTENCES, WORKLOADS, make_workloads, sentences_of


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmark", description="How fast minisbert is beside its peers on this machine.")
    parser.add_argument("--model", choices=list(MODELS), default=next(iter(MODELS)))
    help_text = "a model of bert-base's size of that family; only systems without an export run it, since those are of BERT"
    parser.add_argument("--family", choices=FAMILIES, help=help_text)
    for option, known in ("systems", SYSTEMS), ("workloads", WORKLOADS), ("figures", FIGURES):
        names = list(known)
        metavar = option[:-1].upper()
        parser.add_argument(f"--{option}", nargs="*", choices=names, default=names, metavar=metavar, help=", ".join(names))
    parser.add_argument("--largest", type=int, default=10_000, help="the largest corpus of the figure `sizes`, up to 1000000")
    help_text = "the sizes of the figure `search`: ROWSxQUERIES, or ROWS to mine paraphrases among them"
    parser.add_argument("--searches", nargs="+", type=Size.parse, default=SIZES, metavar="SIZE", help=help_text)
    parser.add_argument("--rounds", type=int, default=5)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no further round after that time")
    parser.add_argument("--threads", type=int, default=cores)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="cpu, with --threads 1, on a busy machine")
    parser.add_argument("--data", type=Path, default=os.environ.get("MINISBERT_STS_DATA"), help="a folder with stsb-test.tsv")
    parser.add_argument(
        "--share", type=float, help="the fraction of each workload; default: 1, and 1/8 for models of bert-base's size"
    )
    parser.add_argument("--retune", action="store_true", help="do not use the ways of batching that an earlier run found best")
    parser.add_argument("--quick", action="store_true", help="a tiny share and 2 rounds: does it run?")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON instead of a table")
    parser.add_argument("--plot", type=Path, help="an SVG file to write")
    options = parser.parse_args(arguments)
    for name, least in ("rounds", 1), ("threads", 1), ("largest", 1000):
        if getattr(options, name) < least:
            parser.error(f"--{name}: found {getattr(options, name)}, expected at least {least}")
    if options.share is not None and not 0 < options.share <= 1:
        parser.error(f"--share: found {options.share}, expected more than 0, up to 1")
    if options.data is not None and not (options.data / "stsb-test.tsv").is_file():
        parser.error(f"--data: found no stsb-test.tsv in {options.data}")
    if options.family is not None:
        options.model = f"{options.family}-base"
    if options.model not in ("all-MiniLM-L6-v2", "bert-base"):
        options.systems = [name for name in options.systems if not SYSTEMS[name].exports]
    options.systems = [name for name in SYSTEMS if name in options.systems]  # in the order of the table, float32 first
    return options


def say(text: str) -> None:
    """Shows progress: in one line of a terminal, else in lines with the time."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the report or the JSON."""
    options = parse(arguments)
    share = options.share or (1 / 64 if options.quick else MODELS[options.model].share)
    until = time.monotonic() + 60 * options.minutes
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    setting = Setting(checkpoint(options.model), exports_folder(options.model), options.threads, options.clock)
    for name in EXPORTS:  # in the order of this table, since later ones read earlier ones
        if any(name in SYSTEMS[system].exports for system in options.systems):
            say(f"exporting for {name}")
            make_export(name, setting.folder, setting.exports)

    import minisbert

    tokenizer = minisbert.load(setting.folder).tokenizer
    tokenizer.max_length = 512
    sentences, kind = sentences_of(options.data, SENTENCES)
    names = dict.fromkeys(["short", *options.workloads])  # the figures need *short*
    made = make_workloads(sentences, share, lambda text: len(tokenizer([text]).ids[0]), names)
    workloads = {name: made[name] for name in options.workloads}

    data = "data" if options.data else "made"
    tuned_path = setting.exports / f"ways-{options.threads}-{share:.4f}-{data}.json"
    tuned = {} if options.retune or options.quick or not tuned_path.is_file() else read_json(tuned_path)
    systems = options.systems if workloads else []
    rounds = 2 if options.quick else options.rounds
    try:
        results = compare(systems, workloads, setting, rounds, tuned=tuned, say=say, until=until)
    finally:
        if not options.quick:
            write_json(tuned_path, tuned)
    request = Request(
        setting,
        made["short"].texts,
        options.systems,
        starts=2 if options.quick else 7,
        largest=1000 if options.quick else options.largest,
        data=options.data,
        searches=(Size(2000, 3), Size(300)) if options.quick else options.searches,
        search_rounds=1 if options.quick else min(3, options.rounds),
    )
    processes = {}
    for name in options.figures:
        say(name)
        processes[name] = FIGURES[name].measure(request)
    say("")
    lengths = {name: [len(ids) for ids in tokenizer(workload.texts).ids] for name, workload in workloads.items()}
    others = [statistics.median(result.others) for rows in results.values() for result in rows.values()]
    report = {
        "model": options.model,
        "clock": options.clock,
        "machine": machine(options.threads),
        "texts": kind,
        "share": share,
        "rounds": rounds,
        "disturbance": max(others, default=0.0),
        "workloads": {
            name: {"calls": len(workload.calls), "texts": len(workload.texts), "tokens": sum(lengths[name])}
            for name, workload in workloads.items()
        },
        "figures": summary(results, workloads),
        "processes": processes,
    }
    if options.plot:
        options.plot.write_text(plot(report["figures"], f"{options.model}: speed, minisbert = 1"), encoding="utf-8")
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()
