# SPDX-License-Identifier: MIT
"""A step asks for no memory, takes no lock and makes no system call; the annotations say so too."""

import itertools
import os
import re
import signal
import sys

import models
import numpy as np
import pytest

import build
import clstm
from build import TESTS_C, linux
from clstm import nn

STEPS = 1_000_000


def weights(rng, prefix, rows, n_in, out, hidden=None):
    """Those of one layer and direction."""
    shapes = {"weight_ih": (rows, n_in), "weight_hh": (rows, out), "bias_ih": rows, "bias_hh": rows}
    shapes |= {"weight_hr": (out, hidden)} if hidden else {}
    name, _, end = prefix.partition("_")
    return {
        f"{name}.{word}_{end}": rng.uniform(-0.3, 0.3, shape).astype(np.float32)
        for word, shape in shapes.items()
    }


def plain(rng):
    """Several layers and a head of every action."""
    layers = [
        nn.LayerNorm("n"),
        nn.LSTM("a"),
        nn.LSTM("b"),
        nn.Linear("fc"),
        nn.GELU(),
        nn.LogSoftmax(),
    ]
    shapes = {"n.weight": 9, "n.bias": 9, "fc.weight": (5, 7), "fc.bias": 5}
    tensors = {name: rng.uniform(-0.3, 0.3, s).astype("f") for name, s in shapes.items()}
    tensors |= weights(rng, "a_l0", 68, 9, 17) | weights(rng, "a_l1", 68, 17, 17)
    return layers, tensors | weights(rng, "b_l0", 48, 17, 7, 12)


def options(rng):
    """Cells that take a step in several passes, and wiring."""
    norm = {"per_gate": True, "separate": True, "cell": True}
    layers = [
        nn.GRU("a"),
        nn.GRU("b", linear_before_reset=False),
        nn.RNN("c", clip=1.0),
        nn.LSTM("d", peephole="full", output_peephole="new", zoneout=(0.125, 0.25)),
        nn.LSTM("e", peephole="diagonal", layer_norm=norm, activations=["Softsign", "Elu", "Tanh"]),
        nn.LSTM("f", proj_clip=0.5),
        nn.Add((1, 2, 3, 4)),
        nn.Mul((7, 5)),
        nn.Concat((6, 8, 0)),
        nn.Slice(3, 30),
        nn.Concat((10, 9, 6)),
    ]
    tensors = {}
    for prefix, gates in [("a_l0", 3), ("b_l0", 3), ("c_l0", 1), ("d_l0", 4), ("e_l0", 4)]:
        tensors |= weights(rng, prefix, gates * 17, 17 if tensors else 9, 17)
    tensors |= weights(rng, "f_l0", 48, 17, 7, 12)
    more = {"d.weight_ch_l0": (68, 17), "e.weight_ch_l0": 51, "e.ln_cell_l0.weight": 17}
    more |= {f"e.ln_{x}_l0.weight": 68 for x in ("ih", "hh")}
    tensors |= {name: rng.uniform(-0.3, 0.3, s).astype("f") for name, s in more.items()}
    return layers, tensors


def tokens(rng):
    layers = [nn.Embedding("e"), nn.GRU("a"), nn.LSTM("b"), nn.Linear("fc"), nn.Softmax()]
    shapes = {"e.weight": (23, 9), "fc.weight": (5, 17), "fc.bias": 5}
    tensors = {name: rng.uniform(-0.3, 0.3, s).astype("f") for name, s in shapes.items()}
    return layers, tensors | weights(rng, "a_l0", 51, 9, 17) | weights(rng, "b_l0", 68, 17, 17)


@pytest.fixture(scope="module", params=[plain, options, tokens], ids=lambda made: made.__name__)
def model(request):
    layers, tensors = request.param(np.random.default_rng(3))
    return clstm.from_state_dict(tensors, layers=layers)


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.clstm"
    model.save(path)
    return path


@pytest.fixture
def counter(count_alloc):
    """The environment that preloads the counter."""
    return {**os.environ, "LD_PRELOAD": str(count_alloc)}


steps_of = pytest.mark.parametrize(
    "steps", [STEPS, pytest.param(10_000_000, marks=pytest.mark.long)]
)
kernels = pytest.mark.parametrize("kernel", clstm.available_kernels())


def here(steps, kernel):
    """A tenth for plain C, which takes ten times as long."""
    return steps // 10 if kernel == "scalar" else steps


@linux
@kernels
@steps_of
def test_no_allocation_and_no_lock_in_c(kernel, steps, builder, file, counter):
    program, steps = builder(("alloc_steps.c",)), here(steps, kernel)
    out = build.succeed([program, file, steps], env={**counter, "CLSTM_KERNEL": kernel})
    assert out == f"{steps} steps: 0 allocations, 0 locks\n"


@linux
def test_the_counter_counts(builder, file, counter):
    out = build.succeed([builder(("alloc_steps.c",)), file, 10, "broken"], env=counter)
    assert out == "10 steps: 1 allocations, 1 locks\n"


def sealed(builder, file, kernel, *words):
    env = {**os.environ, "CLSTM_KERNEL": kernel}
    done = build.run([builder(("alloc_steps.c",)), file, *words], env=env)
    if done.returncode == 77:
        pytest.skip("not run: no seccomp here")
    return done


@linux
@kernels
@pytest.mark.parametrize("steps", [100_000, pytest.param(STEPS, marks=pytest.mark.long)])
def test_no_system_call_in_c(kernel, steps, builder, file):
    steps = here(steps, kernel)
    done = sealed(builder, file, kernel, steps, "sealed")
    assert (done.returncode, done.stdout) == (0, f"{steps} steps sealed\n")


@linux
def test_the_seal_kills(builder, file):
    done = sealed(builder, file, clstm.available_kernels()[0], 10, "sealed", "broken")
    assert done.returncode == -signal.SIGSYS


# ---- clang's own checks of what HOT means


def watched(builder, *words):
    """The program under RealtimeSanitizer: what it printed, or what it stopped for."""
    cc = build.need(build.realtime_clang(), "clang with RealtimeSanitizer (from 20 on)")
    program = builder(("alloc_steps.c",), cc, ("-O0", "-fsanitize=realtime"))
    done = build.run([program, *words])
    assert (done.returncode == 0) == ("RealtimeSanitizer" not in done.stderr), done.stderr
    return done.stdout or done.stderr


@linux
def test_realtime_sanitizer_finds_nothing(builder, file):
    assert watched(builder, file, 10_000, "watched") == "10000 steps\n"


@linux
def test_realtime_sanitizer_knows_the_hot_functions(builder, tmp_path):
    """By their annotation in clstm.h alone: two threads wake each other, which it sees."""
    (tmp_path / "large").write_bytes(models.large())
    found = watched(builder, tmp_path / "large", 10, "watched", 2)
    assert re.search("pthread_|sched_yield", found) and "clstm_step" in found


def analysed(*flags):
    """What clang's analysis of effects says of all that a step goes through."""
    cc = build.need(build.realtime_clang(), "clang that knows effects (from 20 on)")
    include = f"-I{build.ROOT}/csrc/include"
    source = TESTS_C / "effects.c"
    return build.run([cc, "-Wfunction-effects", "-fsyntax-only", include, *flags, source]).stderr


def test_analysis_of_effects_finds_nothing():
    assert analysed() == ""


@pytest.mark.parametrize("which, name", [("TEAM", "team_run"), ("BLAS", "blas_product")])
def test_analysis_of_effects_goes_to_the_end(which, name):
    """The threads or the BLAS, if they are not taken for granted."""
    assert f"calls non-'nonblocking' function 'clstm_{name}'" in analysed(f"-DWITHOUT_{which}")


def test_kernels_call_nothing_outside(builder):
    nm = build.need(build.found("nm"), "nm")
    objects = [o.result() for o in builder.start(("alloc_steps.c",))]
    kernels = [o for o in objects if "isa_" in o.name]
    assert len(kernels) == 4
    for path in kernels:
        called = {line.split()[-1] for line in build.succeed([nm, "-u", path]).splitlines()}
        assert called <= {"memcpy", "memset", "memmove", "fmaf", "fma", "sqrtf", "__stack_chk_fail"}


# ---- Python


def growth(step, n):
    """Blocks that live after n steps and did not before; the readings themselves leave some."""
    times = itertools.repeat(None, n)
    before = sys.getallocatedblocks()
    for _ in times:
        step()
    return sys.getallocatedblocks() - before


def test_no_allocation_in_python(model):
    s = model.stream()
    x = np.linspace(-1, 1, model.input_size or 1, dtype=np.float32)
    if model.num_embeddings:
        x = np.array([3])
    y = np.empty(model.output_size, np.float32)
    for step in (lambda: s.step(x, out=y), s.bind(x, y)):
        growth(step, 1000)
        assert growth(step, STEPS) == growth(step, 0)
    assert s.steps == 2 * (STEPS + 1000)
