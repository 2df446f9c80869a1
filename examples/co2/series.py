# SPDX-License-Identifier: MIT
"""The weekly CO2 series: features for the network, the plain forecasts, the scores.

Training and streaming both go through this file, so they cannot drift apart; and as it takes one
week after the other, nothing in it can look ahead.
"""

from __future__ import annotations

import csv
import math
from collections import deque
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WEEK = timedelta(days=7)
YEAR_WEEKS = 52
INPUTS = 6
MODEL = "LSTM"
HEADER = ("date", "co2", "scored")


class Features:
    """Raw weekly values in, rows of network inputs out; remembers the last 53 weeks."""

    def __init__(self) -> None:
        self._past: deque[float] = deque(maxlen=YEAR_WEEKS + 1)

    def push(self, day: date, co2: float) -> NDArray[np.float32] | None:
        """Take x[t] (NaN: not measured), give the inputs from which x[t+1] is forecast.

        A gap is filled from the past alone: the last value moves as it did 52 weeks earlier, or
        stays where that is not known. Gives None until 53 weeks have been seen.
        """
        past = self._past
        if math.isnan(co2):
            co2 = past[-1] + (past[1] - past[0] if len(past) == past.maxlen else 0.0)
        past.append(co2)
        if len(past) < YEAR_WEEKS + 1:
            return None
        # The season is that of the week to be forecast, whose date is known in advance.
        season = 2.0 * math.pi * (day + WEEK).timetuple().tm_yday / 365.25
        return np.array(
            [
                past[-1] - past[-2],  # the newest change, x[t] - x[t-1]
                past[1] - past[0],  # the change to be forecast, a year earlier: x[t-51] - x[t-52]
                math.sin(season),
                math.cos(season),
                math.sin(2.0 * season),
                math.cos(2.0 * season),
            ],
            dtype=np.float32,
        )

    def forecasts(self, change: float) -> dict[str, float]:
        """What each method says of x[t+1]; `change` is the network's x[t+1] - x[t]."""
        past = self._past
        return {
            MODEL: past[-1] + change,
            "persistence": past[-1],
            "seasonal-naive": past[1],
            "seasonal-naive with drift": past[-1] + past[1] - past[0],
        }


class Scores:
    """Errors of several forecasts of the same weeks."""

    def __init__(self) -> None:
        self._errors: dict[str, list[float]] = {}

    def add(self, actual: float, forecasts: dict[str, float]) -> None:
        for name, value in forecasts.items():
            self._errors.setdefault(name, []).append(value - actual)

    def rmse(self) -> dict[str, float]:
        return {name: math.sqrt(np.mean(np.square(e))) for name, e in self._errors.items()}

    def mae(self) -> dict[str, float]:
        return {name: float(np.mean(np.abs(e))) for name, e in self._errors.items()}

    def model_wins(self) -> bool:
        rmse = self.rmse()
        return all(rmse[MODEL] < value for name, value in rmse.items() if name != MODEL)

    def table(self) -> str:
        rmse, mae = self.rmse(), self.mae()
        lines = [f"{'forecast of next week':<28}{'RMSE ppm':>10}{'MAE ppm':>10}"]
        lines += [f"{name:<28}{rmse[name]:>10.4f}{mae[name]:>10.4f}" for name in rmse]
        return "\n".join(lines)


def read_weeks(path: Path) -> Iterator[tuple[date, float, bool]]:
    """Rows of a CSV as they come: the date, the value, and whether its forecast is scored."""
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            yield date.fromisoformat(row["date"]), float(row["co2"]), row["scored"] == "1"
