# SPDX-License-Identifier: MIT
"""The C reader of `.clstm` against any bytes, under the address and undefined-behaviour
sanitizers; and all of it without memory .
"""

import re

import cell_models
import hostile_images
import models
import numpy as np
import pytest

import build
import clstm
from build import run
from clstm import nn, program
from clstm.formats.container import Image, write_image

SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
READER = ("-O0", *SANITIZERS)  # quick to build; the kernels are not what it tries
FAILING_MALLOC = ("-O0", "-g", "-Dmalloc=check_malloc", "-Dfree=check_free")


def small():
    """Every kind of op and flag in images of a few KB."""
    rng = np.random.default_rng(8)

    def of(*shape):
        return rng.uniform(-0.5, 0.5, shape).astype(np.float32)

    def lstm(prefix, n_in, hidden, ends=("_l0",), proj=0, bias=True):
        out = {}
        for end in ends:
            out[f"{prefix}.weight_ih{end}"] = of(4 * hidden, n_in)
            out[f"{prefix}.weight_hh{end}"] = of(4 * hidden, proj or hidden)
            if bias:
                out |= {
                    f"{prefix}.bias_ih{end}": of(4 * hidden),
                    f"{prefix}.bias_hh{end}": of(4 * hidden),
                }
            if proj:
                out[f"{prefix}.weight_hr{end}"] = of(proj, hidden)
        return out

    one = np.ones(2, np.float32)
    plain = [nn.LSTM("a"), nn.Linear("b"), nn.BatchNorm1d("c"), nn.Softmax()]
    tensors = lstm("a", 23, 3) | {  # 23: a number that stands nowhere else in the records
        "b.weight": of(2, 3),
        "b.bias": of(2),
        "c.running_mean": of(2),
        "c.running_var": one,
    }
    yield write_image(Image(*program.bind(plain, tensors, True)))

    both = [nn.LSTM("a", h0=of(2, 1), c0=of(2, 2)), nn.LayerNorm("n"), nn.PReLU("p"), nn.Hardtanh()]
    tensors = lstm("a", 1, 2, ("_l0", "_l0_reverse"), 1, False)
    tensors |= {"n.weight": one, "n.bias": of(2), "p.weight": of(2)}
    maker = models.Maker(rng)
    maker.layers, maker.tensors = both, tensors
    records, n_in = program.bind(both, tensors, True)
    yield write_image(Image(records, n_in, models.certificate(maker, n_in, rng)))

    words = [
        nn.Embedding("e"),
        nn.LSTMCell("a"),
        nn.Affine("s"),
        nn.Softplus(),
        nn.ELU(),
        nn.LogSoftmax(),
    ]
    tensors = lstm("a", 2, 2, ("",)) | {"e.weight": of(5, 2), "s.scale": of(2), "s.shift": of(1)}
    yield write_image(Image(*program.bind(words, tensors, True)))

    free = [nn.LayerNorm(normalized_shape=3), nn.GELU(), nn.SiLU(), nn.LeakyReLU(), nn.Dropout()]
    yield write_image(Image(*program.bind(free, {}, True)))
    yield from hostile_images.sound_images()


def larger():
    """An image of more bytes than stdio keeps."""
    rng = np.random.default_rng(4)
    shapes = {"a.weight_ih_l0": (192, 16), "a.weight_hh_l0": (192, 48)}
    tensors = {k: rng.uniform(-0.3, 0.3, shape).astype("f4") for k, shape in shapes.items()}
    return write_image(Image(*program.bind([nn.LSTM("a")], tensors, True)))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return models.write_pack(tmp_path_factory.mktemp("hostile") / "pack", list(small()))


def can_sanitize(tmp_path):
    source = tmp_path / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    return run(["cc", *SANITIZERS, source, "-o", tmp_path / "empty"]).returncode == 0


def test_any_bytes_give_a_model_or_an_error(builder, images, tmp_path):
    if not can_sanitize(tmp_path):
        pytest.skip("not run: no sanitizers")
    program_ = builder(("check_file.c", "hostile.c", "check.c"), "cc", READER)
    done = run(
        [program_, images, 20_000],
        env={"CLSTM_KERNEL": "scalar", "ASAN_OPTIONS": "allocator_may_return_null=1"},
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"check_file: \d{5,} passed, 0 failed", done.stdout)
    loaded = int(re.search(rf"{len(list(small()))} images, (\d+) of the changed", done.stdout)[1])
    assert loaded > 1000  # the checksum is right and values may be any: most flips of weights load


def test_records_that_contradict_themselves_are_refused(builder, tmp_path):
    if not can_sanitize(tmp_path):
        pytest.skip("not run: no sanitizers")
    pack = models.write_pack(tmp_path / "pack", hostile_images.refused())
    out = build.succeed([builder(("check_refused.c", "check.c"), "cc", READER), pack])
    assert re.search(r"check_refused: \d{3,} passed, 0 failed", out), out


@pytest.mark.parametrize("why, image", list(hostile_images.all_refused()))
def test_python_refuses_them_too(why, image, tmp_path):
    (tmp_path / "m.clstm").write_bytes(write_image(image))
    with pytest.raises(clstm.ClstmError):
        clstm.load(tmp_path / "m.clstm")


def test_no_memory_and_wrong_arguments(builder, images, tmp_path):
    file = tmp_path / "m.clstm"
    file.write_bytes(next(small()))
    out = build.succeed(
        [builder(("check_memory.c", "check.c"), "cc", FAILING_MALLOC), images, file]
    )
    assert re.search(r"check_memory: \d{3,} passed, 0 failed", out), out


@build.linux
@pytest.mark.parametrize("count", [300, pytest.param(100_000, marks=pytest.mark.long)])
def test_a_file_that_changes_while_it_is_loaded(count, builder, tmp_path):
    """Cut, written over, replaced: one of the models, or an error. tests/core/test_disk.py has the
    same for Python."""
    if not can_sanitize(tmp_path):
        pytest.skip("not run: no sanitizers")
    (tmp_path / "m.clstm").write_bytes(larger())
    program_ = builder(("check_changes.c", "hostile.c", "check.c"), "cc", READER)
    out = build.succeed([program_, tmp_path / "m.clstm", count], timeout=3000)
    assert re.search(r"check_changes: \d{3,} passed, 0 failed", out), out
    print(out)


@pytest.mark.long
@pytest.mark.parametrize("check", ["check_kernels", "digest"])
def test_kernels_and_walk_under_the_sanitizers(check, builder, images, tmp_path):
    """Reads past a row, a panel or a state show here; two minutes."""
    if not can_sanitize(tmp_path):
        pytest.skip("not run: no sanitizers")
    if check == "check_kernels":
        build.succeed([builder(build.CHECK_KERNELS, "cc", ("-O1", *SANITIZERS))])
    else:
        pack = models.write_pack(
            tmp_path / "pack", [*models.images(200, seed=5), *cell_models.images(230, seed=5)]
        )
        build.succeed(
            [builder(("digest.c", "drive.c", "check.c"), "cc", ("-O1", *SANITIZERS)), pack, 20_000]
        )
