# SPDX-License-Identifier: MIT
"""Train the CO2 example: `python train.py` (needs torch and statsmodels; about ten seconds).

Writes co2_lstm.pt (a plain state dict) and co2_heldout.csv (what stream.py streams).
"""

from __future__ import annotations

import argparse
import copy
import csv
import math
from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import statsmodels.api as sm
import torch
from series import HEADER, INPUTS, Features, Scores, read_weeks
from torch import Tensor, nn

VALIDATION = date(1991, 1, 1)  # targets before it train; from it on they choose the epoch
HELD_OUT = date(1996, 1, 1)  # from it on they are looked at once, at the end
WARM_UP = date(1993, 1, 1)  # where the excerpt starts: one year for lags, two for the state

HIDDEN = 32
EPOCHS = 60
STEPS_PER_EPOCH = 7  # about the number of batches that cover the training years once
BATCH = 32
WINDOW = 156  # weeks; the first year of each window warms the state up and is not scored
WINDOW_WARM_UP = 52


class Affine(nn.Module):
    """y = x * scale + shift: the normalisation of the inputs, saved with the weights."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", 1.0 / x.std(0))
        self.register_buffer("shift", -x.mean(0) / x.std(0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


class Net(nn.Module):
    """The change of CO2 in the coming week, in ppm, from the features of each week so far."""

    def __init__(self, training_inputs: Tensor) -> None:
        super().__init__()
        self.norm = Affine(training_inputs)
        self.lstm = nn.LSTM(INPUTS, HIDDEN)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(HIDDEN, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.lstm(self.norm(x))[0]))[..., 0]


def load_weeks() -> list[tuple[date, float]]:
    series = sm.datasets.co2.load_pandas().data["co2"]
    return [(day.date(), float(value)) for day, value in series.items()]


def examples(weeks: list[tuple[date, float]]) -> tuple[list[date], Tensor, Tensor]:
    """Dates of the targets, inputs, and changes to forecast (NaN where not measured)."""
    features, days, inputs, changes = Features(), [], [], []
    for (day, co2), (next_day, next_co2) in pairwise(weeks):
        x = features.push(day, co2)
        if x is not None:
            days.append(next_day)
            inputs.append(x)
            changes.append(next_co2 - features.forecasts(0.0)["persistence"])
    return days, torch.from_numpy(np.stack(inputs)), torch.tensor(changes)


def mean_square(error: Tensor) -> Tensor:
    return error[~error.isnan()].square().mean()


def train(days: list[date], x: Tensor, y: Tensor, seed: int) -> Net:
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    n_train = sum(day < VALIDATION for day in days)
    n_known = sum(day < HELD_OUT for day in days)
    # Cut here, so that the held-out weeks cannot reach any choice made below.
    x, y = x[:n_known], y[:n_known]

    net = Net(x[:n_train])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, EPOCHS * STEPS_PER_EPOCH)
    best, best_epoch, best_state = math.inf, 0, net.state_dict()
    for epoch in range(1, EPOCHS + 1):
        net.train()
        for _ in range(STEPS_PER_EPOCH):
            starts = rng.integers(0, n_train - WINDOW + 1, BATCH)
            rows = torch.from_numpy(starts[None, :] + np.arange(WINDOW)[:, None])
            loss = mean_square((net(x[rows]) - y[rows])[WINDOW_WARM_UP:])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            rmse = float(mean_square((net(x) - y)[n_train:]).sqrt())
        if rmse < best:
            best, best_epoch, best_state = rmse, epoch, copy.deepcopy(net.state_dict())
    print(f"validation RMSE {best:.4f} ppm at epoch {best_epoch} of {EPOCHS}")
    net.load_state_dict(best_state)
    return net


def write_excerpt(path: Path, weeks: list[tuple[date, float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for day, co2 in weeks:
            if day >= WARM_UP:
                writer.writerow([day.isoformat(), f"{co2:.1f}", int(day >= HELD_OUT)])


def score(net: Net, excerpt: Path) -> Scores:
    """The scores on the excerpt, week by week as stream.py does it, but through PyTorch."""
    features, scores = Features(), Scores()
    state, pending = None, None
    with torch.no_grad():
        for day, co2, scored in read_weeks(excerpt):
            if scored and pending is not None:
                scores.add(co2, pending)
            x = features.push(day, co2)
            if x is not None:
                y, state = net.lstm(net.norm(torch.from_numpy(x)[None]), state)
                pending = features.forecasts(float(net.head(y)))
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the CO2 example.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    weeks = load_weeks()
    net = train(*examples(weeks), args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), args.out / "co2_lstm.pt")
    write_excerpt(args.out / "co2_heldout.csv", weeks)
    print(score(net, args.out / "co2_heldout.csv").table())


if __name__ == "__main__":
    main()
