# SPDX-License-Identifier: MIT
"""The error of LSTMs with PyTorch's default weights (or these times a gain) and x ~ N(0, 1) against
float64, beside PyTorch's own: 200 models step by step, each step from the engine's own state, and
10,000 steps in a row of models that are shown to be contractive.

    PYTHONPATH=tests python tests/parity/accuracy.py --threads 2 --resume accuracy.json

Exit status 1 if something is missed. The lines that it prints can be quoted.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import zip_longest
from multiprocessing import get_context

import numpy as np
import torch

import clstm
import long_form
import oracle
import samples
from bounds import step_bound, worst
from bounds.tolerances import BESIDE_TORCH, DRIFT, FREE_RUN, MEAN_RATIO
from clstm import nn

# input size, hidden size, what the default weights are multiplied with, steps, models
STEPWISE = [
    *((32, hidden, 1, 100_000, 16) for hidden in (32, 64, 128)),
    (32, 64, 4, 100_000, 16),
    (100, 100, 1, 100_000, 18),
    (128, 128, 1, 100_000, 18),
    (256, 256, 1, 10_000, 50),
    (1024, 1024, 1, 1_000, 50),
]
FREE = [(32, hidden, gain, 10_000, 8) for hidden in (32, 64, 128) for gain in (1, 2, 4)]
WINDOW = 100  # steps of a product of Jacobians
TORCH_STEPS = 2000  # of a model, evenly spread: PyTorch takes some ten times as long


def model_of(inputs, hidden, gain, seed):
    """(module, tensors, float64 weights) with a generator for the inputs."""
    torch.manual_seed(seed)
    module = torch.nn.LSTM(inputs, hidden)
    with torch.no_grad():
        for value in module.parameters():
            value *= gain
    tensors = {name: value.detach().numpy() for name, value in module.state_dict().items()}
    ((w,),) = oracle.directions(tensors)
    w = type(w)(*(None if a is None else a.astype(np.float64) for a in w))
    return module, tensors, w, samples.rng_of(seed)


def stream_of(tensors):
    return clstm.from_state_dict(tensors, layers=[nn.LSTM()]).stream()


def one_step(module, x, h, c):
    """PyTorch's h after one step of one row."""
    with torch.no_grad():
        rows = (torch.from_numpy(a[None, None]) for a in (x, h, c))
        frame, *state = rows
        return module(frame, tuple(state))[0].numpy()[0, 0]


def stepwise(inputs, hidden, gain, steps, seed):
    """The worst error of any step as a part of its bound, and max |dh|: clstm's of all steps, then
    clstm's and PyTorch's of the steps that PyTorch took too."""
    module, tensors, w, rng = model_of(inputs, hidden, gain, seed)
    stream = stream_of(tensors)
    stream.run(samples.floats(rng, 2, inputs))
    every, chunk = max(1, steps // TORCH_STEPS), 2**19 // hidden
    found = {"ratio": 0.0, "h": 0.0, "ours": 0.0, "theirs": 0.0}
    for first in range(0, steps, chunk):
        x = samples.floats(rng, min(chunk, steps - first), inputs)
        h, c = np.empty((2, len(x) + 1, hidden), np.float32)
        h[0], c[0] = (part[0] for part in stream.state)
        for t, frame in enumerate(x):
            stream.step(frame)
            h[t + 1], c[t + 1] = (part[0] for part in stream.state)
        exact = step_bound(w, x, h[:-1], c[:-1], "random")
        off = np.abs(h[1:] - exact.h).max(axis=1)
        ratios = [
            worst(h[1:], exact.h, exact.h_bound),
            worst(c[1:], exact.c, exact.c_bound),
            found["ratio"],
        ]
        found["ratio"], found["h"] = max(ratios), max(found["h"], float(off.max()))
        for t in range(-first % every, len(x), every):
            theirs = np.abs(one_step(module, x[t], h[t], c[t]) - exact.h[t]).max()
            found["theirs"] = max(found["theirs"], float(theirs))
            found["ours"] = max(found["ours"], float(off[t]))
    return found


def tangent(w, z, c, new, dh, dc):
    """What one step of float64 makes of small differences (H, n) of h and c: the derivative of
    c' = f c + i g, h' = o tanh(c'), at pre-activations z, from c to new."""
    i, f, g, o = np.split(z, 4)
    i, f, g, o = (a[:, None] for a in (oracle.sigmoid(i), oracle.sigmoid(f), np.tanh(g),
                                       oracle.sigmoid(o)))  # fmt: skip
    di, df, dg, do = np.split(w.w_hh @ dh, 4)
    squashed = np.tanh(new)[:, None]
    dc = f * dc + f * (1 - f) * c[:, None] * df + i * (1 - i) * g * di + i * (1 - g * g) * dg
    return o * (1 - o) * squashed * do + o * (1 - squashed * squashed) * dc, dc


def free_run(w, x):
    """(h of every step, the growth of each WINDOW of steps) of a run in float64 from zeros. Growth
    is the 2-norm of the product of the window's Jacobians, so that no difference of states, in
    whatever direction, grows by more; below 1 in every window: the run forgets."""
    hidden = w.hidden_size
    h, c = np.zeros((2, hidden))
    out, growth, identity = np.empty((len(x), hidden)), [], np.eye(2 * hidden)
    bias = w.b_ih + w.b_hh
    for t, frame in enumerate(x):
        if t % WINDOW == 0:
            dh, dc = np.split(identity, 2)
        z = w.w_ih @ frame + w.w_hh @ h + bias
        before = c
        h, c = oracle.lstm_step(w, frame, h, c)
        dh, dc = tangent(w, z, before, c, dh, dc)
        if t % WINDOW == WINDOW - 1:
            growth.append(np.linalg.norm(np.concatenate([dh, dc]), 2))
        out[t] = h
    return out, np.array(growth)


def free(inputs, hidden, gain, steps, seed):
    """max |dh| of clstm and PyTorch over a free run, clstm's over the first and the last tenth,
    and the largest growth of a window."""
    module, tensors, w, rng = model_of(inputs, hidden, gain, seed)
    x = samples.floats(rng, steps, inputs)
    exact, growth = free_run(w, x)
    ours = np.abs(stream_of(tensors).run(x) - exact).max(axis=1)
    with torch.no_grad():
        theirs = np.abs(module(torch.from_numpy(x))[0].numpy() - exact).max()
    tenth = steps // 10
    found = (ours.max(), theirs, ours[:tenth].max(), ours[-tenth:].max(), growth.max())
    names = ("ours", "theirs", "first", "last", "growth")
    return dict(zip(names, map(float, found), strict=True))


def work(part):
    how, *numbers = part.split()
    return {"step": stepwise, "free": free}[how](*map(int, numbers))


def parts_of(groups, how):
    """The names of the parts of each group: its numbers, but a seed for the number of models."""
    return {
        group: [" ".join(map(str, (how, *group[:-1], seed))) for seed in range(group[-1])]
        for group in groups
    }


def report_stepwise(group, found):
    """The line to quote, and what was missed."""
    inputs, hidden, gain, steps, models = group
    ratio, h = (max(one[name] for one in found) for name in ("ratio", "h"))
    ours, theirs = (np.array([one[name] for one in found]) for name in ("ours", "theirs"))
    mean = ours.mean() / theirs.mean()
    missed = [] if ratio <= 1 else ["the bound"]
    if inputs == hidden and not mean <= MEAN_RATIO.get(hidden, 1.0):
        missed.append("the mean")
    return (
        f"step I={inputs} H={hidden} gain {gain}: {models} models x {steps:,} steps, at most "
        f"{ratio:.3f} of the bound; max|dh| {h:.3g}; in the mean {mean:.3f} of PyTorch's, which is "
        f"{theirs.mean():.3g}"
    ), missed


def report_beside(found):
    """The same of all models: how many err by more than PyTorch does in the same steps."""
    within = sum(one["ours"] <= BESIDE_TORCH * one["theirs"] for one in found)
    missed = [] if within >= 0.99 * len(found) else ["99 of 100"]
    return f"{within} of {len(found)} models err by at most {BESIDE_TORCH} x PyTorch's", missed


def report_free(group, found):
    inputs, hidden, gain, steps, models = group
    shown = [one for one in found if one["growth"] < 1]
    line = f"free I={inputs} H={hidden} gain {gain}: {len(shown)} of {models} models contractive"
    if not shown:
        return line, ["no such model"]
    ours, theirs, growth = (max(one[n] for one in shown) for n in ("ours", "theirs", "growth"))
    beside = sum(one["ours"] for one in shown) / sum(one["theirs"] for one in shown)
    drift = max(one["last"] / one["first"] for one in shown)
    missed = [] if ours <= FREE_RUN[gain] else ["max|dh|"]
    if not beside <= BESIDE_TORCH:
        missed.append("the mean")
    if not drift <= DRIFT:
        missed.append("the drift")
    return (
        f"{line}, growth over {WINDOW} steps at most {growth:.2g}; {steps:,} steps: max|dh| "
        f"{ours:.3g}, PyTorch's {theirs:.3g}, in the mean {beside:.3f} of it; last tenth / first "
        f"tenth at most {drift:.2f}"
    ), missed


def main():
    o = long_form.arguments(__doc__.splitlines()[0]).parse_args()
    of = [clstm.__version__, clstm.available_kernels()[0], torch.__version__, WINDOW, TORCH_STEPS]
    groups = {"step": parts_of(STEPWISE, "step"), "free": parts_of(FREE, "free")}
    turns = zip_longest(*(parts for each in groups.values() for parts in each.values()))
    every = [part for turn in turns for part in turn if part]  # a bit of each group from the start
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # of the new processes: the parts run side by side
    executor = ProcessPoolExecutor(o.threads, get_context("spawn"))
    found = long_form.results(every, work, of=of, resume=o.resume, executor=executor)
    found = dict(zip(every, found, strict=True))
    print(*of, long_form.today())
    steps, free_runs = groups.values()
    reports = [report_stepwise(group, [found[p] for p in parts]) for group, parts in steps.items()]
    reports.append(report_beside([found[p] for parts in steps.values() for p in parts]))
    reports += [report_free(g, [found[p] for p in parts]) for g, parts in free_runs.items()]
    for line, missed in reports:
        print(line + "".join(f"; MISSED: {one}" for one in missed))
    total = sum(steps * models for *_, steps, models in STEPWISE)
    failures = sum(len(missed) for _, missed in reports)
    print(f"{sum(group[-1] for group in STEPWISE)} models, {total:,} steps, {failures} missed")
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
