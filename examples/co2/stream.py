# SPDX-License-Identifier: MIT
"""Stream held-out CO2 data through an LSTM trained in PyTorch: `python stream.py`.

Needs clstm and NumPy only. Exits with 1 if the LSTM does not beat every plain forecast.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from series import MODEL, WEEK, Features, Scores, read_weeks

import clstm
from clstm import nn

HERE = Path(__file__).parent
LATENCY_STEPS = 20_000


def load() -> clstm.Model:
    layers = [nn.Affine("norm"), nn.LSTM("lstm"), nn.Linear("head")]
    return clstm.load(HERE / "co2_lstm.pt", layers=layers)


def stream_weeks(model: clstm.Model, every: int) -> tuple[Scores, list[np.ndarray]]:
    """Forecast each week before its row is read; print as it goes; return scores and inputs."""
    features, scores, inputs = Features(), Scores(), []
    stream = model.stream()
    change = np.empty(1, np.float32)
    pending: dict[str, float] | None = None
    week = 0
    print(f"{'week':<12}{'measured':>10}{'forecast':>10}{'error':>8}   (ppm)")
    for day, co2, scored in read_weeks(HERE / "co2_heldout.csv"):
        if scored and pending is not None:
            scores.add(co2, pending)
            if week % every == 0:
                forecast = pending[MODEL]
                print(f"{day}  {co2:>10.1f}{forecast:>10.2f}{forecast - co2:>+8.2f}", flush=True)
            week += 1
        x = features.push(day, co2)
        if x is not None:
            stream.step(x, out=change)
            pending = features.forecasts(float(change[0]))
            inputs.append(x)
    if pending is not None:
        print(f"{day + WEEK}  {'to come':>10}{pending[MODEL]:>10.2f}")
    print(f"{week} weeks scored, {len(inputs)} steps in all\n")
    return scores, inputs


def latency_us(model: clstm.Model, inputs: list[np.ndarray]) -> np.ndarray:
    """Microseconds of each step, the same weeks streamed over and over."""
    stream = model.stream()
    out = np.empty(1, np.float32)
    step, clock = stream.step, time.perf_counter_ns
    for x in inputs:  # warm-up
        step(x, out=out)
    taken = []
    while len(taken) < LATENCY_STEPS:
        stream.reset()
        for x in inputs:
            start = clock()
            step(x, out=out)
            taken.append(clock() - start)
    return np.array(taken) / 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description="Forecast weekly CO2 at Mauna Loa, as a stream.")
    parser.add_argument(
        "--every", type=int, default=13, metavar="N", help="print every Nth week (default: 13)"
    )
    args = parser.parse_args()

    model = load()
    print(f"{model}\n")
    scores, inputs = stream_weeks(model, max(1, args.every))
    print(f"{scores.table()}\n")
    taken = latency_us(model, inputs)
    p50, p99 = np.percentile(taken, [50, 99])
    print(
        f"latency per step: p50 {p50:.2f} us, p99 {p99:.2f} us "
        f"({len(taken)} steps, kernel {model.kernel})"
    )
    if not scores.model_wins():
        print("the LSTM does not beat every plain forecast", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
