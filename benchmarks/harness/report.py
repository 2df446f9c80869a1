# SPDX-License-Identifier: MIT
"""Tables and plots of a run, from its JSON alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .targets import reached

COLUMNS = (  # ratios that the table shows, and their heads
    ("ONNX Runtime", "ONNX Runtime"),
    ("ONNX Runtime IO binding", "IO binding"),
    ("OpenVINO", "OpenVINO"),
    ("torch nn.{}", "torch module"),
    ("torch nn.{}Cell", "torch cell"),
    ("torch compile {}Cell", "torch.compile"),
    ("JAX", "JAX"),
    ("NumPy", "NumPy"),
    ("clstm blas", "clstm blas"),
    ("clstm bind", "clstm bind"),
)


def markdown(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * (n - 1) + ":" for n in widths], *rows[1:]]
    return "\n".join(f"| {' | '.join(map(str.rjust, row, widths))} |" for row in rows)


def parts(run: dict[str, Any]) -> dict[str, str]:
    """A table for each mode, the C call, what the machine was, what was missing."""
    out = {}
    for mode, title in (
        ("step", "One step of one stream"),
        ("batch", "One step of many streams in one call"),
        ("sequence", "Whole sequences"),
    ):
        found = [case for case in run["cases"] if case["mode"] == mode and "us" in case]
        if found:
            threads = {1: "one thread", 2: "two threads"}.get(found[0]["threads"], "many threads")
            out[mode] = f"**{title}, {threads}.** A side's column is its median / clstm's.\n\n"
            out[mode] += _table(found)
    out["short"] = _short(run["cases"])
    calls = [*run["c_call"], *(case["c"] for case in run["cases"] if "c" in case)]
    if calls:
        words = ("best", "median", "p99")
        rows = [[c["model"], *(f"{c[k]:.3f}" for k in words)] for c in calls]
        table = markdown([["model", *(f"{k}, µs" for k in words)], *rows])
        out["c"] = f"**The step from C.**\n\n{table}"
    both = run["settings"] | run["versions"] | {"date": run["date"]}
    out["machine"] = ", ".join(f"{k}: {v}" for k, v in both.items()) + "."
    probes = [case["probe"] for case in run["cases"] if "probe" in case]
    if probes:
        low = {k: min(p[k] for p in probes) for k in ("GHz", "GFLOP/s", "of the peak")}
        high = {k: max(p[k] for p in probes) for k in low}
        ranges = [f"{k} {low[k]:.3g} to {high[k]:.3g}" for k in low]
        out["machine"] += f" The FMA probe over the run: {', '.join(ranges)}."
    clocks = [case["clock_us"] for case in run["cases"] if "clock_us" in case]
    if clocks:
        out["machine"] += f" Reading the clock takes {min(clocks):g} to {max(clocks):g} µs"
        out["machine"] += ", which is in no figure."
    rows = [[*words, "yes" if holds else "no"] for *words, holds in reached(run)]
    if rows:
        head = [["case", "what", "target", "reached", "holds"]]
        out["targets"] = f"**Targets.**\n\n{markdown(head + rows)}"
    absent = {f"{k}: {v}" for case in run["cases"] for k, v in case["missing"].items()}
    if absent:
        out["missing"] = "\n".join(sorted(absent))
    return out


SHORT = ("ONNX Runtime", "OpenVINO", "torch nn.LSTM", "torch nn.LSTMCell", "NumPy")


def _short(cases: list[dict[str, Any]]) -> str:
    """README's table: steps of an LSTM, a row a hidden size; "" of a run without them."""
    rows = [["hidden size", "clstm, µs", "of the limit", *SHORT]]
    for c in cases:
        if c["mode"] == "step" and c["kind"] == "LSTM" and c["n_in"] == c["hidden"] and "us" in c:
            limit = c.get("share", {}).get("limit")
            ratios = [c["ratio"].get(name) for name in SHORT]
            rows.append([str(c["hidden"]), f"{c['us']['clstm']['50']:.2f}",
                         f"{limit:.0%}" if limit else "",
                         *("" if r is None else f"{r:.1f}" for r in ratios)])  # fmt: skip
    return markdown(rows) if len(rows) > 1 else ""


def tables(run: dict[str, Any]) -> str:
    return "\n\n".join(text for name, text in parts(run).items() if text and name != "short")


def insert(runs: list[dict[str, Any]], page: Path) -> None:
    """Puts parts of the runs between the markers of a page: <!-- suite step 1 --> (part, threads)
    ... <!-- /suite -->; what no run has stays as it is."""
    known = {
        f"{name} {run['settings']['threads']}": text
        for run in runs
        for name, text in parts(run).items()
    }

    def put(found: re.Match[str]) -> str:
        text = known.get(found[1])
        return f"<!-- suite {found[1]} -->\n{text}\n<!-- /suite -->" if text else found[0]

    text = page.read_text(encoding="utf-8")
    text = re.sub(r"<!-- suite ([\w ]+) -->\n(.*?)<!-- /suite -->", put, text, flags=re.DOTALL)
    page.write_text(text, encoding="utf-8")


def _table(cases: list[dict[str, Any]]) -> str:
    named = [(pattern, head) for pattern, head in COLUMNS
             if any(pattern.format(c["kind"]) in c["ratio"] for c in cases)]  # fmt: skip
    shares = [("of the limit", "limit"), ("from C", "C limit"), ("of the FMA peak", "FMA peak")]
    shares = [s for s in shares if any(c.get("share", {}).get(s[1]) for c in cases)]
    rows = [["case", "clstm, µs", "p99, µs", *(head for head, _ in shares)]]
    rows[0] += [head for _, head in named]
    for c in cases:
        us, share = c["us"]["clstm"], c.get("share", {})
        size = f"H{c['hidden']}" if c["n_in"] == c["hidden"] else f"I{c['n_in']} H{c['hidden']}"
        rest = {"step": "", "batch": f" B{c['batch']}", "sequence": f" T{c['steps']} B{c['batch']}"}
        parts = [share.get(key) for _, key in shares]
        row = [f"{c['kind']} {size}{rest[c['mode']]}", f"{us['50']:.2f}", f"{us['99']:.2f}"]
        row += ["" if part is None else f"{part:.0%}" for part in parts]
        ratios = [c["ratio"].get(pattern.format(c["kind"])) for pattern, _ in named]
        rows.append(row + ["" if r is None else f"{r:.2f}" for r in ratios])
    return markdown(rows)


# ---- plots --------------------------------------------------------------------------------

COLOURS = {
    "clstm": "#c0392b",
    "ONNX Runtime": "#2e86c1",
    "ONNX Runtime IO binding": "#85c1e9",
    "OpenVINO": "#7d3c98",
    "JAX": "#229954",
    "NumPy": "#b7950b",
    "torch nn.LSTM": "#ca6f1e",
    "torch nn.LSTMCell": "#e59866",
    "torch compile LSTMCell": "#935116",
}


def draw(run: dict[str, Any], folder: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "clstm", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    cases = [c for c in run["cases"] if c["kind"] == "LSTM" and "us" in c]
    square = [c for c in cases if c["n_in"] == c["hidden"]]
    steps = sorted((c for c in square if c["mode"] == "step"), key=lambda c: c["hidden"])
    rows = sorted(
        (c for c in square if c["mode"] == "batch" and c["hidden"] == 256),
        key=lambda c: c["batch"],
    )
    for name, found, paint in (
        ("latency", steps, _latency),
        ("percentiles", steps, _percentiles),
        ("throughput", rows, _throughput),
    ):
        if len(found) < 2:
            continue
        figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
        paint(axes, found)
        axes.grid(True, which="major", alpha=0.3)
        axes.legend(fontsize=7, frameon=False)
        how = f"{run['settings']['kernel']}, {run['settings']['threads']} thread(s)"
        axes.set_title(f"{axes.get_title()} ({how})", fontsize=9)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)


def _line(axes: Any, xs: list[int], ys: list[float], name: str, **options: Any) -> None:
    width = 2.2 if name == "clstm" else 1.2
    axes.plot(xs, ys, "o-", ms=3, lw=width, color=COLOURS.get(name), label=name, **options)


def _latency(axes: Any, cases: list[dict[str, Any]]) -> None:
    xs = [c["hidden"] for c in cases]
    for name in COLOURS:
        if all(name in c["us"] for c in cases):
            _line(axes, xs, [c["us"][name]["50"] for c in cases], name)
    if all("limits_us" in c for c in cases):
        ys = [c["limits_us"]["limit"] for c in cases]
        axes.plot(xs, ys, "k--", lw=1, label="limit: the weights read once")
    axes.set(xscale="log", yscale="log", xlabel="hidden size = input size", ylabel="µs a step")
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.set_xticks([], minor=True)
    axes.set_title("One LSTM step of one stream, median")


def _percentiles(axes: Any, cases: list[dict[str, Any]]) -> None:
    case = min(cases, key=lambda c: abs(c["hidden"] - 128))
    words = ["1", "10", "25", "50", "75", "90", "95", "99", "99.9"]
    for name in COLOURS:
        if name in case["us"]:
            values = [case["us"][name][w] for w in words]
            _line(axes, list(range(len(words))), values, name)
    axes.set(yscale="log", xlabel="percentile", ylabel="µs a step")
    axes.set_xticks(range(len(words)), words)
    axes.set_title(f"One LSTM step, H = {case['hidden']}")


def _throughput(axes: Any, cases: list[dict[str, Any]]) -> None:
    xs = [c["batch"] for c in cases]
    for name in COLOURS:
        if all(name in c["us"] for c in cases):
            ys = [c["batch"] / c["us"][name]["50"] for c in cases]
            _line(axes, xs, ys, name)
    if all("limits_us" in c for c in cases):
        ys = [c["batch"] / c["limits_us"]["limit"] for c in cases]
        axes.plot(xs, ys, "k--", lw=1, label="limit: FMA peak, or the weights read once")
    axes.set(xscale="log", yscale="log", xlabel="streams in one call", ylabel="steps a µs")
    axes.set_xticks(xs, [str(x) for x in xs])
    axes.set_xticks([], minor=True)
    axes.set_title("LSTM, H = 256, one step of many streams")
