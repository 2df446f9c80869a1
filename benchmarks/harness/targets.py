# SPDX-License-Identifier: MIT
"""What a run must reach on a machine with AVX-512, and what it reached."""

from __future__ import annotations

from typing import Any

ORT = "ONNX Runtime"
# Peer's time / clstm's, by mode, threads, hidden size; LSTM, and the case's steps and batch.
RATIOS = {
    ("step", 1): {32: 25, 64: 10, 128: 4, 256: 3, 512: 1.15, 1024: 1.05},
    ("step", 2): {512: 1.1, 1024: 1.1},
    ("batch", 1): {128: 1.3, 256: 1.1, 512: 1.1},  # 64 streams
    ("sequence", 1): {128: 1.5},  # 256 steps
    ("sequence", 2): {512: 1.5},
}
WITH = {("batch", 1): ("batch", 64), ("sequence", 1): ("steps", 256)}  # of that size alone
RATIOS_AVX2 = {32: 20, 64: 8, 128: 3, 256: 2}  # of a step
AT_THE_LIMIT = 0.95  # instead, from 512 on and on two threads: both sides meet the memory
LIMIT = {64: 0.7, 128: 0.8, 256: 0.8, 512: 0.8, 1024: 0.8}  # of a step on one thread
FMA_PEAK, FMA_ROWS = 0.75, 16  # of a batch, from so many rows on


def reached(run: dict[str, Any]) -> list[tuple[str, str, str, str, bool]]:
    """Of each target that the run has the case for: the case, what, what was wanted, what was
    reached, does it hold."""
    rows = []
    avx2 = run["settings"]["kernel"] == "avx2"
    for case in (c for c in run["cases"] if "us" in c and c["n_in"] == c["hidden"]):
        mode, threads, n = case["mode"], case["threads"], case["hidden"]
        share = case.get("share", {})
        targets = RATIOS.get((mode, threads), {})
        if avx2:
            targets = RATIOS_AVX2 if (mode, threads) == ("step", 1) else {}
        key, size = WITH.get((mode, threads), ("hidden", n))
        if case["kind"] == "LSTM" and n in targets and case[key] == size and ORT in case["ratio"]:
            wanted, ratio, limit = targets[n], case["ratio"][ORT], share.get("limit", 0)
            memory = n >= 512 or threads > 1
            holds = ratio >= wanted or (memory and limit >= AT_THE_LIMIT)
            text = f"{ratio:.2f}" + (f", {limit:.0%} of the limit" if memory else "")
            rows.append((case["name"], f"{ORT} / clstm", f"{wanted:g}", text, holds))
        if (mode, threads) == ("step", 1) and n in LIMIT and share:
            part = share.get("C limit") or share["limit"]
            rows.append((case["name"], "of the limit, from C", f"{LIMIT[n]:.0%}", f"{part:.0%}",
                         part >= LIMIT[n]))  # fmt: skip
        if (mode, threads) == ("batch", 1) and case["batch"] >= FMA_ROWS and share.get("FMA peak"):
            part = share["FMA peak"]
            rows.append((case["name"], "of the FMA peak", f"{FMA_PEAK:.0%}", f"{part:.0%}",
                         part >= FMA_PEAK))  # fmt: skip
    return rows
