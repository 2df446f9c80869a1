# SPDX-License-Identifier: MIT
"""The command `clstm`: mostly `main()` in this process, the real command where that matters."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import clstm
from clstm import cli, nn
from clstm.cli.__main__ import main
from clstm.cli.layers import parse_layers
from clstm.formats.container import read_image, write_image

ROOT = Path(__file__).resolve().parents[2]
LAYERS = [nn.LSTM("lstm"), nn.Linear("fc")]
LIST = "[nn.LSTM('lstm'), nn.Linear('fc')]"
Cli = Callable[..., SimpleNamespace]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """main(), with text as standard input; .status, .out, .err."""

    def call(*args: object, stdin: bytes | None = None) -> SimpleNamespace:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            status = main([str(a) for a in args])
        except SystemExit as end:
            status = end.code
        out, err = capsys.readouterr()
        return SimpleNamespace(status=status, out=out, err=err)

    return call


def fails(result: SimpleNamespace, *words: str) -> None:
    """Status 2, one line that has the words, nothing else."""
    assert result.status == 2
    assert re.fullmatch(r"clstm: .+\n", result.err), result.err
    for word in words:
        assert word in result.err


def lstm(p: str, n_in: int, n: int, both: bool = False) -> dict[str, np.ndarray]:
    r = np.random.default_rng(n_in * 100 + n)
    ends = ["_l0", "_l0_reverse"] if both else ["_l0"]
    shapes = dict(weight_ih=(4 * n, n_in), weight_hh=(4 * n, n), bias_ih=(4 * n,), bias_hh=(4 * n,))
    return {
        f"{p}{name}{end}": r.normal(0, 0.3, shape).astype("f4")
        for end in ends
        for name, shape in shapes.items()
    }


def state_dict() -> dict[str, np.ndarray]:
    r = np.random.default_rng(1)
    fc = {"fc.weight": r.normal(size=(2, 8)).astype("f4"), "fc.bias": r.normal(size=2).astype("f4")}
    return lstm("lstm.", 3, 8) | fc


def frames(n: int = 20) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(n, 3)).astype("f4")


def as_csv(x: np.ndarray) -> bytes:
    return "".join(",".join(f"{v:.9g}" for v in row) + "\n" for row in x.tolist()).encode()


def from_csv(text: str) -> np.ndarray:
    return np.array([[float(v) for v in line.split(",")] for line in text.splitlines()], "f4")


@pytest.fixture
def model() -> clstm.Model:
    return clstm.from_state_dict(state_dict(), layers=LAYERS)


@pytest.fixture
def file(tmp_path: Path, model: clstm.Model) -> Path:
    model.save(tmp_path / "m.clstm")
    return tmp_path / "m.clstm"


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    save_file(state_dict(), tmp_path / "w.safetensors")
    return tmp_path / "w.safetensors"


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    r = np.random.default_rng(3)
    weights = {"emb.weight": r.normal(size=(5, 3)).astype("f4")} | lstm("lstm.", 3, 4)
    m = clstm.from_state_dict(weights, layers=[nn.Embedding("emb"), nn.LSTM("lstm")])
    m.save(tmp_path / "t.clstm")
    return tmp_path / "t.clstm"


# ---- the command itself -------------------------------------------------------------------


def command() -> list[str]:
    script = Path(sysconfig.get_path("scripts")) / "clstm"
    return [str(script)] if script.exists() else [sys.executable, "-m", "clstm"]


def test_version_comes_at_once() -> None:
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run([*command(), "--version"], capture_output=True, text=True)
        taken.append(time.perf_counter() - start)
        assert (done.returncode, done.stdout) == (0, f"clstm {clstm.__version__}\n")
    assert min(taken) < 0.150, taken


def test_version_has_one_source() -> None:
    header = (ROOT / "csrc/include/clstm.h").read_text(encoding="utf-8")
    assert f'#define CLSTM_VERSION "{clstm.__version__}"' in header


@pytest.mark.parametrize("args", [["--version"], ["--help"], ["run", "--help"], ["run"]])
def test_what_needs_no_numpy_imports_none(args: list[str]) -> None:
    code = (
        "import sys\nfrom clstm.cli.__main__ import main\n"
        f"try: main({args!r})\nexcept SystemExit: pass\n"
        "sys.exit('numpy' in sys.modules or 'clstm._core' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_package_brings_its_names_when_they_are_used() -> None:
    code = (
        "import sys, clstm\nassert 'numpy' not in sys.modules\n"
        "assert set(clstm.__all__) <= set(dir(clstm))\n"
        "assert not hasattr(clstm, 'nothing')\n"
        "from clstm import *\n"
        "assert Model is clstm.Model and nn.LSTM and clstm.formats.read_file\n"
        "assert clstm.__version__ == clstm._core.VERSION and load is clstm.loading.load\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_python_m(file: Path) -> None:
    run = [sys.executable, "-m", "clstm", "run", file]
    done = subprocess.run(run, input=as_csv(frames(2)), capture_output=True)
    assert (done.returncode, done.stdout.count(b"\n"), done.stderr) == (0, 2, b"")


def test_usage_errors_are_one_line(run: Cli, file: Path) -> None:
    fails(run(), "COMMAND", "clstm --help")
    fails(run("walk"), "walk")
    fails(run("run"), "MODEL", "clstm run --help")
    fails(run("run", file, "--chunk", "0"), "an integer from 1 on")
    fails(run("verify", file, "--atol", "-1"), "from 0 on")
    fails(run("verify", file, "--rtol", "nan"), "from 0 on")
    fails(run("convert", file), "--output")
    fails(run("run", file, "--chu", "1"), "--chu")


@pytest.mark.parametrize("name", ["info", "convert", "run", "verify", "config"])
def test_help(run: Cli, name: str) -> None:
    done = run(name, "--help")
    assert done.status == 0 and done.out.startswith(f"usage: clstm {name}")


def test_the_tolerances_are_those_of_the_check_at_load(run: Cli) -> None:
    text = (ROOT / "csrc/src/certificate.c").read_text(encoding="utf-8")
    in_c = [float(re.findall(rf"#define {n} (\S+)", text)[0]) for n in ("RELATIVE", "ABSOLUTE")]
    assert in_c == [cli.RTOL, cli.ATOL]
    assert "default: 0.0001" in run("verify", "--help").out


def test_config(run: Cli) -> None:
    done = run("config", "--json")
    assert json.loads(done.out) == clstm.show_config("dict")
    assert f"version: {clstm.__version__}\n" in run("config").out


# ---- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["info", "run", "verify", "convert"])
def test_files_that_cannot_be_read(run: Cli, tmp_path: Path, name: str) -> None:
    more = ["-o", tmp_path / "out.clstm"] if name == "convert" else []
    fails(run(name, tmp_path / "nothing.pt", *more), "nothing.pt: No such file or directory")
    fails(run(name, tmp_path, *more), "regular file")
    (tmp_path / "bad.clstm").write_bytes(b"CLSTM\0\r\n" + b"\xff" * 100)
    fails(run(name, tmp_path / "bad.clstm", *more), "bad.clstm")
    (tmp_path / "text.csv").write_text("1,2\n")
    fails(run(name, tmp_path / "text.csv", *more), "unknown kind of file")


def test_every_kind_of_error_is_one_line(
    run: Cli, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, words in [
        (clstm.UnsupportedError("not\nthis\x1b[31m"), r"not this\x1b[31m"),
        (OSError(28, "No space left", "there"), "there: No space left"),
        (MemoryError(), "out of memory"),
        (ValueError("x"), "x"),
        (OSError("plain"), "plain"),
    ]:

        def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr("clstm.cli.common.read_file", refuse)
        fails(run("info", file), words)


def test_an_interrupt_is_quiet(run: Cli, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("clstm.cli.common.read_file", interrupt)
    done = run("info", file)
    assert (done.status, done.out, done.err) == (130, "", "")


def test_words_of_options(run: Cli, file: Path) -> None:
    fails(run("run", file, "--kernel", "mmx"), "mmx")
    fails(run("run", file, "--gemm", "fast"), "fast")
    fails(run("info", file, "--layers", LIST), "holds its layers")
    fails(run("info", file, "--key", "ema"), "key='ema'")


# ---- --layers -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        (LIST, LAYERS),
        ("nn.LSTM()", [nn.LSTM()]),
        (" (clstm.nn.LSTM('a', True), ReLU(),)\n", [nn.LSTM("a", True), nn.ReLU()]),
        ("[nn.LayerNorm('n', eps=1)]", [nn.LayerNorm("n", 1)]),
        ("[nn.Affine(scale=[-1, 2.5])]", [nn.Affine(scale=[-1, 2.5])]),
        ("[nn.LSTM('l', h0='h0', hidden_size=3)]", [nn.LSTM("l", h0="h0", hidden_size=3)]),
        ("[nn.LayerNorm(normalized_shape=(6,))]", [nn.LayerNorm(normalized_shape=(6,))]),
    ],
)
def test_layers_are_read(text: str, layers: list[nn.Layer]) -> None:
    assert parse_layers(text) == layers


HOSTILE = [
    "", "1", "x", "nn", "x=1", "\0", "[", "lambda: nn.LSTM()", "nn.LSTM", "nn.LSTM()()",
    "[nn.LSTM() for _ in 'a']", "*[nn.LSTM()]", "print('EVALUATED')", "open('EVALUATED', 'w')",
    "__import__('os').system('touch EVALUATED')", "nn.dataclass('a')", "nn.Layer()",
    "nn.LSTM.__init__('a')", "nn.__dict__['LSTM']('a')", "os.system('touch EVALUATED')",
    "[nn.LSTM(open('EVALUATED', 'w'))]", "nn.LSTM(prefix=print('EVALUATED'))",
    "nn.LSTM((lambda: 'a')())", "nn.LSTM(f'{print(1)}')", "nn.LSTM('a' + 'b')", "nn.LSTM('a' * 9)",
    "nn.LSTM(*['a'])", "nn.LSTM(**{'prefix': 'a'})", "nn.LSTM('a', prefix='b')", "nn.LSTM(z=1)",
    "nn.LSTM(prefix='a', prefix='b')", "nn.LSTM(5)", "nn.LSTM(None)", "nn.LSTM('a', 1)",
    "nn.LSTM(h0={})", "nn.LSTM(h0=[[1], ['x']])", "nn.LSTM(h0=b'x')", "nn.LSTM(h0=[[[[[1]]]]])",
    "nn.LayerNorm(eps=10**9999)", "nn.LayerNorm(eps=" + "9" * 400 + ")", "nn.LayerNorm(eps=True)",
    "nn.LayerNorm(eps='a')", "nn.LayerNorm(eps=1j)", "nn.Softmax(0)", "nn.GELU('x')", "nn.GRU('g')",
    "nn.ReLU(1)", "[" * 9999, "-" * 99999 + "1", "+".join("1" * 50000), "nn." * 5000 + "LSTM()",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_what_is_no_list_of_layers_is_refused(run: Cli, foreign: Path, text: str) -> None:
    fails(run("info", foreign, "--layers", text))


def test_layers_are_never_evaluated(tmp_path: Path) -> None:
    """No code is run, nothing imported or opened, while hostile texts are read."""
    code = f"""
import sys
from clstm.cli.layers import parse_layers
hostile = {[t for t in HOSTILE if len(t) < 200]!r}
def read():
    for text in [{LIST!r}, *hostile]:
        try: parse_layers(text)
        except ValueError: pass
read()  # whatever is imported late
seen = []
sys.addaudithook(lambda event, args: seen.append(event))
read()
sys.exit(f"{{set(seen)}}" if set(seen) - {{"compile"}} else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "layers",
    ["[]", "[nn.ReLU()]", "[nn.LSTM('x')]", "[nn.Affine(scale='x'), nn.LSTM('lstm')]",
     "[nn.LSTM('lstm', h0=[[1], [2, 3]])]", "[nn.LSTM('lstm', h0=3)]", "[nn.LSTM('l\\ud800')]",
     "[nn.LSTM('lstm', hidden_size='a')]", "[nn.LayerNorm(normalized_shape=-5)]",
     "[nn.LayerNorm(normalized_shape=2**40)]", "[nn.LayerNorm(normalized_shape=5000000000)]",
     "[nn.LSTM('lstm'), nn.LSTM('lstm')]"],
)  # fmt: skip
def test_layers_that_do_not_fit_are_one_line(run: Cli, foreign: Path, layers: str) -> None:
    fails(run("info", foreign, "--layers", layers, "--no-strict"))


# ---- info ---------------------------------------------------------------------------------


def test_info_of_a_model(run: Cli, file: Path, model: clstm.Model) -> None:
    facts = json.loads(run("info", file, "--json").out)
    assert facts["kind"] == "clstm" and facts["fingerprint"] == model.fingerprint
    assert (facts["input_size"], facts["output_size"]) == (3, 2)
    assert facts["parameters"] == sum(a.size for a in state_dict().values())
    assert (facts["kernel"], facts["gemm"]) == (model.kernel, model.gemm)
    assert facts["packed_bytes"] == model.nbytes and facts["certificate"] is None
    assert [layer["type"] for layer in facts["layers"]] == ["LSTM", "Linear"]
    assert facts["layers"][0]["sizes"]["hidden_size"] == 8
    assert {t["name"]: t["shape"] for t in facts["tensors"]} == {
        name: list(a.shape) for name, a in state_dict().items()
    }
    text = run("info", file)
    assert (text.status, text.err) == (0, "")
    for word in [
        model.fingerprint, "LSTM('lstm')", "hidden_size=8", "certificate  none", "3 features",
        model.kernel, f"{model.nbytes:,} bytes", "lstm.weight_ih_l0",
    ]:  # fmt: skip
        assert word in text.out


def test_info_of_one_recurrent_module_and_of_tokens(run: Cli, tmp_path: Path, tokens: Path) -> None:
    np.savez(tmp_path / "one.npz", **lstm("", 3, 8, both=True))
    facts = json.loads(run("info", tmp_path / "one.npz", "--json").out)
    assert facts["layers"][0]["sizes"]["bidirectional"] is True
    assert "bidirectional=True" in run("info", tmp_path / "one.npz").out
    assert "tokens 0 ... 4" in run("info", tokens).out


def test_info_of_a_foreign_file_says_what_to_write(run: Cli, foreign: Path) -> None:
    done = run("info", foreign)
    assert (done.status, done.err) == (0, "")
    assert 'layers=[nn.LSTM("lstm"), nn.Linear("fc")]\n' in done.out
    facts = json.loads(run("info", foreign, "--json").out)
    assert facts["layers"] is None and facts["suggested_strict"] and facts["left_out"] == []
    # what it says to write works as it stands
    words = done.out.splitlines()[-1].split("--layers ")[1].strip("'")
    assert json.loads(run("info", foreign, "--layers", words, "--json").out)["output_size"] == 2


def test_info_of_files_that_are_no_model(run: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "conv.npz", **{"c.weight": np.zeros((2, 3, 3), "f4")})
    assert "no tensor looks like a layer" in run("info", tmp_path / "conv.npz").out
    np.savez(tmp_path / "part.npz", **lstm("a.", 3, 4), **{"\x1b[31m": np.zeros(2, "f4")})
    done = run("info", tmp_path / "part.npz")
    assert "leaving out \\x1b[31m" in done.out and "strict=False" in done.out
    assert "\x1b" not in done.out and "--no-strict" in done.out
    assert "input " in run("info", tmp_path / "part.npz", "--no-strict").out
    gru = {"weight_ih_l0": np.zeros((12, 3), "f4"), "weight_hh_l0": np.zeros((12, 4), "f4")}
    np.savez(tmp_path / "gru.npz", **gru)
    assert "GRU's; this version runs LSTMs" in run("info", tmp_path / "gru.npz").out


def test_info_warns_of_weights_that_are_not_finite(run: Cli, tmp_path: Path) -> None:
    weights = lstm("", 3, 4)
    weights["weight_hh_l0"][1, :2] = np.nan, np.inf
    np.savez(tmp_path / "w.npz", **weights)
    done = run("info", tmp_path / "w.npz")
    warning = "clstm: warning: weight_hh_l0 holds 2 numbers that are not finite\n"
    assert (done.status, done.err) == (0, warning)
    converted = run("convert", tmp_path / "w.npz", "-o", tmp_path / "w.clstm")
    assert (converted.status, converted.err) == (0, warning)


# ---- convert ------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".clstm", ".safetensors"])
def test_convert(run: Cli, foreign: Path, tmp_path: Path, model: clstm.Model, suffix: str) -> None:
    out = tmp_path / f"new{suffix}"
    done = run("convert", foreign, "-o", out, "--layers", LIST)
    assert (done.status, done.err) == (0, "")
    assert f"wrote {out}: {out.stat().st_size:,} bytes" in done.out
    assert model.fingerprint in done.out
    assert clstm.load(out).fingerprint == model.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([out.name, foreign.name])


def test_convert_refuses(run: Cli, foreign: Path, file: Path, tmp_path: Path) -> None:
    before = file.read_bytes()
    fails(run("convert", file, "-o", file), "overwrite the input")
    os.symlink(file, tmp_path / "link.clstm")
    fails(run("convert", file, "-o", tmp_path / "link.clstm"), "overwrite the input")
    assert file.read_bytes() == before
    fails(run("convert", file, "-o", tmp_path / "m.onnx"), ".clstm or .safetensors")
    fails(run("convert", file, "-o", tmp_path / "no" / "m.clstm"), "No such file or directory")
    fails(run("convert", foreign, "-o", tmp_path / "n.clstm"), 'layers=[nn.LSTM("lstm")')
    fails(
        run("convert", foreign, "-o", tmp_path / "n.clstm", "--layers", "[nn.LSTM('lstm')]"), "fc."
    )
    assert not (tmp_path / "n.clstm").exists()
    part = ["--layers", "[nn.LSTM('lstm')]", "--no-strict"]
    assert run("convert", foreign, "-o", tmp_path / "n.clstm", *part).status == 0


def test_convert_keeps_the_certificate_and_takes_a_key(
    run: Cli, tmp_path: Path, model: clstm.Model
) -> None:
    torch = pytest.importorskip("torch")
    weights = {name: torch.from_numpy(a) for name, a in state_dict().items()}
    torch.save({"net": weights, "ema": weights}, tmp_path / "two.pt")
    out = tmp_path / "m.clstm"
    fails(run("convert", tmp_path / "two.pt", "-o", out, "--layers", LIST), "ema", "net")
    assert (
        run("convert", tmp_path / "two.pt", "-o", out, "--layers", LIST, "--key", "ema").status == 0
    )
    model.save(tmp_path / "c.clstm", check=(frames(), model(frames())[0]))
    assert run("convert", tmp_path / "c.clstm", "-o", tmp_path / "c.safetensors").status == 0
    assert "20 steps x 1; 40 outputs agree" in run("info", tmp_path / "c.safetensors").out


# ---- run ----------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [[], ["--chunk", "1"], ["--chunk", "7"], ["--chunk", "1000"]])
def test_run_gives_the_bits_of_a_stream(
    run: Cli, file: Path, tmp_path: Path, model: clstm.Model, chunk: list[str]
) -> None:
    x = frames(600)
    y = model.stream().run(x)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "f.npy", np.asfortranarray(x))
    np.save(tmp_path / "big.npy", x.astype(">f8"))
    (tmp_path / "x.csv").write_bytes(as_csv(x))
    for name in ("x.npy", "f.npy", "big.npy", "x.csv"):
        done = run("run", file, tmp_path / name, *chunk)
        assert (done.status, done.err) == (0, "")
        assert from_csv(done.out).tobytes() == y.tobytes()  # the text brings every bit back
    for args in ([], ["-"]):
        done = run("run", file, *args, *chunk, stdin=as_csv(x))
        assert from_csv(done.out).tobytes() == y.tobytes()
    done = run("run", file, "-", "--json", *chunk, stdin=as_csv(x))
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert np.array(rows, "f4").tobytes() == y.tobytes()


def test_run_of_a_foreign_file_with_options(run: Cli, foreign: Path, model: clstm.Model) -> None:
    args = ["--layers", LIST, "--kernel", "scalar", "--gemm", "packed"]
    done = run("run", foreign, *args, stdin=as_csv(frames()))
    assert from_csv(done.out).tobytes() == model.stream().run(frames()).tobytes()
    done = run("run", foreign, "--layers", "nn.LSTM('lstm')", "--no-strict", stdin=b"1,2,3\n")
    assert done.out.count(",") == 7
    fails(run("run", foreign, stdin=b""), 'layers=[nn.LSTM("lstm")')


@pytest.mark.parametrize(
    ("text", "args"),
    [
        (b"a,b,c\n1,2,3\n4,5,6\n", []),
        (b"# a,b,c\r\n\r\n1,2,3\r\n\r\n4,5,6", []),
        (b"\xef\xbb\xbf1,2,3\n4,5,6\n", []),
        (b"0,1,2\n1,2,3\n4,5,6\n", ["--header"]),
        (b"1,2,3\n4,5,6\n", ["--no-header"]),
        (b"1; 2; 3\n4;5;6\n", []),
        (b"1\t2\t3\n4\t5\t6\n", []),
        (b"  1 2   3.0\n4e0 5 +6\n", []),
    ],
)
def test_csv_as_others_write_it(
    run: Cli, file: Path, model: clstm.Model, text: bytes, args: list[str]
) -> None:
    y = model.stream().run(np.array([[1, 2, 3], [4, 5, 6]], "f4"))
    done = run("run", file, *args, stdin=text)
    assert from_csv(done.out).tobytes() == y.tobytes()


@pytest.mark.parametrize(
    ("text", "args", "words"),
    [
        (b"1,2,3\n\n4,5\n", [], ["line 3", "expected 3 numbers, found 2"]),
        (b"1,2,3\n4,,6\n", [], ["line 2", "'' is no number"]),
        (b"1,2,3\n4,x,6\n", [], ["line 2", "'x' is no number"]),
        (b"1,2,3\n1_0,5,6\n", [], ["line 2", "'1_0' is no number"]),
        (b"1,x,3\n", [], ["line 1", "'x' is no number"]),
        (b"a,b,c\n", ["--no-header"], ["line 1", "'a' is no number"]),
        (b"a,b,c\nd,e,f\n", [], ["line 2", "'d' is no number"]),
        (b"1,2,3\n\xff\xfe,5,6\n", [], ["line 2", "is no number"]),
        (b"1,2,3\n" + b"9" * 500 + b"\n", [], ["line 2", "..."]),
        (b"\x93NUMPY\x01\x00v\x00", [], ["give its path"]),
    ],
)
def test_a_bad_row_is_named_and_those_before_it_are_predicted(
    run: Cli, file: Path, tmp_path: Path, text: bytes, args: list[str], words: list[str]
) -> None:
    done = run("run", file, *args, stdin=text)
    fails(done, "standard input", *words)
    rows = int(text.startswith(b"1,2,3\n"))
    assert done.out.count("\n") == rows
    if not text.startswith(b"\x93"):
        (tmp_path / "x.csv").write_bytes(text)
        done = run("run", file, tmp_path / "x.csv", *args)
        fails(done, "x.csv: line", *words)
        assert done.out.count("\n") == rows


def test_run_of_arrays_that_do_not_fit(run: Cli, file: Path, tokens: Path, tmp_path: Path) -> None:
    def npy(array: Any) -> Path:
        np.save(tmp_path / "x.npy", array)
        return tmp_path / "x.npy"

    fails(run("run", file, npy(frames()[:, :2])), "(T, 3)", "(20, 2)")
    fails(run("run", file, npy(frames()[0])), "(T, 3)", "(3,)")
    fails(run("run", file, npy(np.float32(1))), "(T, 3)")
    fails(run("run", file, npy(frames() * 1j)), "real numbers", "complex")
    fails(run("run", file, npy(np.array([[{}] * 3]))), "x.npy")
    fails(run("run", tokens, npy(np.ones(3))), "integers")
    fails(run("run", tokens, npy([[1]])), "(T,)")
    wrong = run("run", tokens, npy([1, 2, 5, 1]), "--chunk", "2")
    fails(wrong, "row 3", "token 5 is outside 0 ... 4")
    assert wrong.out.count("\n") == 2
    cut = npy(frames()).read_bytes()
    for n in (6, 7, 60, 130, len(cut) - 1):
        (tmp_path / "cut.npy").write_bytes(cut[:n])
        fails(run("run", file, tmp_path / "cut.npy"), "cut.npy")
    huge = b"\x93NUMPY\x01\x00v\x00" + b"{'descr':'<f4','fortran_order':False,'shape':(10**30,3)}"
    (tmp_path / "cut.npy").write_bytes(huge.replace(b"10**30", b"1" * 30).ljust(127) + b"\n")
    fails(run("run", file, tmp_path / "cut.npy"), "cut.npy")


@pytest.mark.parametrize("empty", [b"", b"\n\n", b"a,b,c\n"])
def test_nothing_in_nothing_out(run: Cli, file: Path, tmp_path: Path, empty: bytes) -> None:
    assert vars(run("run", file, stdin=empty)) == {"status": 0, "out": "", "err": ""}
    np.save(tmp_path / "x.npy", frames(0))
    assert vars(run("run", file, tmp_path / "x.npy")) == {"status": 0, "out": "", "err": ""}


def test_run_of_tokens(run: Cli, tokens: Path, tmp_path: Path) -> None:
    y = clstm.load(tokens).stream().run([0, 4, 2])
    np.save(tmp_path / "x.npy", np.array([0, 4, 2], np.uint8))
    for done in (
        run("run", tokens, stdin=b"token\n0\n 4\n2\n"),
        run("run", tokens, tmp_path / "x.npy"),
    ):
        assert from_csv(done.out).tobytes() == y.tobytes()
    for text, words in [
        ("1\n5\n", "token 5 is"), ("1\n-1\n", "token -1 is"), ("1\n1.0\n", "'1.0'"),
        ("1\n1_0\n", "'1_0'"), ("1\n1,2\n", "'1,2'"), ("1\n" + "9" * 99, "..."),
    ]:  # fmt: skip
        fails(run("run", tokens, stdin=text.encode()), "line 2", words)


def test_numbers_that_are_not_finite(run: Cli, file: Path) -> None:
    text = b"1,2,3\nnan,1e99,-inf\n"
    assert run("run", file, stdin=text).out.splitlines()[1] == "nan,nan"
    assert run("run", file, "--json", stdin=text).out.splitlines()[1] == "[null,null]"


def test_run_writes_to_a_file(run: Cli, file: Path, tmp_path: Path) -> None:
    rows = tmp_path / "x.csv"
    rows.write_bytes(as_csv(frames()))
    out = tmp_path / "y.csv"
    done = run("run", file, rows, "-o", out)
    assert vars(done) == {"status": 0, "out": "", "err": ""}
    assert out.read_text() == run("run", file, rows).out
    fails(run("run", file, rows, "-o", rows), "overwrite the input")
    fails(run("run", file, rows, "-o", file), "overwrite the input")
    assert rows.read_bytes() == as_csv(frames())
    fails(run("run", file, rows, "-o", tmp_path / "no" / "y"), "No such file")


def test_a_bidirectional_model_is_no_stream(run: Cli, tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", **lstm("", 3, 4, both=True))
    fails(run("run", tmp_path / "b.npz", stdin=b"1,2,3\n"), "bidirectional")


def test_predictions_come_as_the_rows_do(file: Path, model: clstm.Model) -> None:
    stream = model.stream()
    with subprocess.Popen(
        [*command(), "run", file], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    ) as process:
        assert process.stdin and process.stdout
        for x in frames(5):
            process.stdin.write(as_csv(x[None]))
            y = from_csv(process.stdout.readline().decode())  # before the next row is written
            assert y[0].tobytes() == stream.step(x).tobytes()
        process.stdin.close()
        assert process.wait(60) == 0


def test_a_reader_that_leaves_is_no_error(file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", frames(100_000))
    with subprocess.Popen(
        [*command(), "run", file, tmp_path / "x.npy"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, b"")


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_control_c_is_quiet(file: Path) -> None:
    code = (  # the handler as in a terminal, also where the tests run in the background
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from clstm.cli.__main__ import main; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "run", file],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(b"1,2,3\n")
        process.stdout.readline()  # it waits for the next row now
        process.send_signal(signal.SIGINT)
        assert (process.wait(60), process.stderr.read()) == (130, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line(file: Path) -> None:
    with open("/dev/full", "wb") as full:
        for args in (["run", file], ["info", file]):
            done = subprocess.run(
                [*command(), *args], input=b"1,2,3\n", stdout=full, stderr=subprocess.PIPE
            )
            assert (done.returncode, done.stderr) == (2, b"clstm: No space left on device\n")


def test_closed_standard_streams(file: Path) -> None:
    for closed, status, err in [("<&-", 2, "clstm: standard input is closed\n"), (">&-", 0, "")]:
        line = f'echo 1,2,3 | "$0" -m clstm run "$1" {closed}'
        done = subprocess.run(
            ["/bin/sh", "-c", line, sys.executable, file], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr, done.stdout) == (status, err, "")


# ---- progress -----------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clstm.cli.progress._FIRST", 0.0)
    monkeypatch.setattr("clstm.cli.progress._EVERY", 0.0)


@pytest.mark.usefixtures("at_once")
def test_progress_as_lines(run: Cli, file: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", frames(40))
    done = run("run", file, tmp_path / "x.npy", "--progress", "--chunk", "10")
    assert done.err == "".join(f"clstm: {n} rows ({n / 40:.0%})\n" for n in (10, 20, 30, 40))
    (tmp_path / "x.csv").write_bytes(b"1,2,3\n" * 40)
    done = run("run", file, tmp_path / "x.csv", "--progress", "--chunk", "10")
    assert done.err.splitlines()[1] == "clstm: 20 rows (50%)"
    done = run("run", file, "--progress", "--chunk", "20", stdin=b"1,2,3\n" * 40)
    assert done.err == "clstm: 20 rows\nclstm: 40 rows\n"
    for args in ([], ["--no-progress"]):  # no terminal
        assert run("run", file, tmp_path / "x.npy", *args).err == ""


@pytest.mark.usefixtures("at_once")
def test_progress_as_a_bar(
    run: Cli, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of rich, with its place taken by what notes the calls."""
    calls: list[tuple[str, dict[str, Any]]] = []

    class Bar:
        def __init__(self, *columns: Any, **options: Any) -> None:
            calls.append(("new", options))

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **words: calls.append((name, words))

    column = lambda *args, **words: None  # noqa: E731
    progress = SimpleNamespace(
        Progress=Bar, BarColumn=column, TextColumn=column, TimeRemainingColumn=column
    )
    console = SimpleNamespace(Console=lambda stderr: "standard error" if stderr else "")
    monkeypatch.setitem(sys.modules, "rich.progress", progress)
    monkeypatch.setitem(sys.modules, "rich.console", console)
    monkeypatch.setattr("clstm.cli.progress._is_terminal", lambda stream: stream is sys.stderr)
    np.save(tmp_path / "x.npy", frames(40))
    done = run("run", file, tmp_path / "x.npy", "--chunk", "10")
    assert (done.status, done.err, done.out.count("\n")) == (0, "", 40)
    assert [name for name, _ in calls] == ["new", "add_task", "start", "update", "stop"]
    assert calls[0][1]["console"] == "standard error" and calls[1][1]["total"] == 40
    assert calls[3][1] == {"completed": 10, "rows": "10 rows"}  # no more than ten a second


# ---- verify -------------------------------------------------------------------------------


@pytest.fixture
def known(tmp_path: Path) -> Callable[..., Path]:
    def write(**arrays: Any) -> Path:
        np.savez(tmp_path / "known.npz", **arrays)
        return tmp_path / "known.npz"

    return write


def test_verify_against_arrays(
    run: Cli, file: Path, model: clstm.Model, known: Callable[..., Path]
) -> None:
    x = np.random.default_rng(4).normal(size=(5, 2, 3))
    h0, c0 = np.full((1, 2, 8), 0.5), np.full((1, 2, 8), -0.5)
    done = run("verify", file, "--against", known(x=x, y=model(x)[0]))
    assert (done.status, done.err) == (0, "")
    assert done.out == "ok: 20 outputs agree, largest error 0 (atol 1e-05, rtol 0.0001)\n"
    against = known(x=x, y=model(x, (h0, c0))[0], h0=h0, c0=c0)
    assert run("verify", file, "--against", against).status == 0
    y = model(x)[0].astype("f8")
    y[3, 1, 0] += 0.01
    done = run("verify", file, "--against", known(x=x, y=y))
    assert done.status == 1 and done.err == ""
    assert done.out.startswith("mismatch: 1 of 20 outputs differ, largest error 0.01")
    assert "output [3, 1, 0] is" in done.out
    facts = json.loads(run("verify", file, "--against", known(x=x, y=y), "--json").out)
    assert (facts["ok"], facts["wrong"], facts["index"]) == (False, 1, [3, 1, 0])
    assert facts["error"] == pytest.approx(0.01) and (facts["rtol"], facts["atol"]) == (1e-4, 1e-5)
    assert run("verify", file, "--against", known(x=x, y=y), "--atol", "0.011").status == 0
    assert run("verify", file, "--against", known(x=x, y=y), "--rtol", "1e9").status == 0
    assert run("verify", file, "--against", known(x=x, y=model(x)[0] * 1.0000005), "--rtol", "0",
               "--atol", "0").status == 1  # fmt: skip


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_verify_of_what_is_not_finite(
    run: Cli, file: Path, model: clstm.Model, known: Callable[..., Path], value: float
) -> None:
    y = model(frames())[0]
    y[2, 1] = value
    done = run("verify", file, "--against", known(x=frames(), y=y), "--json", "--rtol", "1e30")
    assert done.status == 1
    facts = json.loads(done.out)
    assert (facts["error"], facts["index"], facts["expected"]) == (None, [2, 1], None)
    x = frames()
    x[5] = np.nan
    assert run("verify", file, "--against", known(x=x, y=model(x)[0])).status == 0


def test_verify_refuses_arrays_that_do_not_fit(
    run: Cli, file: Path, tokens: Path, known: Callable[..., Path], model: clstm.Model
) -> None:
    x, y = frames(), model(frames())[0]
    h = np.zeros((1, 8), "f4")
    for arrays, word in [
        ({"x": x}, "no y"), ({"y": y}, "no x"), ({"x": x, "y": y, "h_0": h}, "not h_0"),
        ({"x": x, "y": y, "h0": h}, "one is missing"), ({"x": x, "y": y[:3]}, "(20, 2)"),
        ({"x": x[:, :2], "y": y}, "shape"), ({"x": x, "y": y, "h0": h[:, :2], "c0": h}, "h:"),
        ({"x": x[:0], "y": y[:0]}, "no outputs"), ({"x": x, "y": y * 1j}, "dtype"),
    ]:  # fmt: skip
        fails(run("verify", file, "--against", known(**arrays)), word)
    fails(run("verify", tokens, "--against", known(x=x, y=y)), "integers")
    fails(run("verify", file, "--against", file.parent / "nothing.npz"), "nothing.npz")


def certified(path: Path, model: clstm.Model, x: np.ndarray, wrong: float = 0.0) -> Path:
    """A file whose certificate is off by `wrong`; such a one `clstm.load` refuses."""
    result = model(x)
    y = result[0]
    model.save(path, check=(x, y))
    if wrong:
        image = read_image(path.read_bytes(), "", clstm.formats.Budget(2**30))
        assert image.check
        image.check = (image.check[0], image.check[1] + np.float32(wrong))
        path.write_bytes(write_image(image))
    return path


def test_verify_runs_certificates(
    run: Cli, file: Path, foreign: Path, tmp_path: Path, model: clstm.Model
) -> None:
    good = certified(tmp_path / "good.clstm", model, frames())
    assert run("verify", good).out.startswith("ok: 40 outputs agree, largest error 0 ")
    assert run("verify", file, "--against", good).status == 0
    args = ["--against", good, "--layers", LIST, "--kernel", "scalar"]
    assert run("verify", foreign, *args).status == 0
    bad = certified(tmp_path / "bad.clstm", model, frames(), wrong=0.1)
    fails(run("run", bad, stdin=b""), "certificate fails")
    for done in (run("verify", bad), run("verify", good, "--against", bad)):
        assert done.status == 1 and "40 of 40 outputs differ, largest error 0.1" in done.out
    assert "FAILS: 40 of 40" in run("info", bad).out
    assert json.loads(run("info", bad, "--json").out)["certificate"]["holds"] is False
    assert run("verify", bad, "--atol", "0.11").status == 0
    for args in ([file], [good, "--against", file], [good, "--against", foreign]):
        fails(run("verify", *args), "holds no certificate")


def test_verify_runs_certificates_of_every_kind_of_model(
    run: Cli, tokens: Path, file: Path, tmp_path: Path
) -> None:
    r = np.random.default_rng(5)
    x = r.normal(size=(4, 6, 3)).astype("f4")
    many = {
        "plain": clstm.from_state_dict(lstm("", 3, 4)),
        "batch_first": clstm.from_state_dict(lstm("", 3, 4), layers=[nn.LSTM(batch_first=True)]),
        "both": clstm.from_state_dict(lstm("", 3, 4, both=True)),
        "both_first": clstm.from_state_dict(
            lstm("", 3, 4, both=True), layers=[nn.LSTM(batch_first=True)]
        ),
    }
    for name, m in many.items():
        for suffix in (".clstm", ".safetensors"):
            path = tmp_path / f"{name}{suffix}"
            m.save(path, check=(x, m(x)[0]))
            done = run("verify", path)
            assert done.out.startswith("ok: "), (name, done)
    cell = {name.removesuffix("_l0"): a for name, a in lstm("", 3, 4).items()}
    m = clstm.from_state_dict(cell)
    m.save(tmp_path / "cell.clstm", check=(x[0], m(x[0])[0]))
    assert run("verify", tmp_path / "cell.clstm").out.startswith("ok: 24 outputs")
    t = clstm.load(tokens)
    t.save(tmp_path / "tok.clstm", check=([[0, 1], [4, 2]], t([[0, 1], [4, 2]])[0]))
    assert run("verify", tmp_path / "tok.clstm").out.startswith("ok: 16 outputs")
    fails(run("verify", file, "--against", tmp_path / "tok.clstm"), "does not fit the model")


# ---- docs/cli.md --------------------------------------------------------------------------

MACHINE = [  # what differs between machines, Python's versions and torch's last bits
    (r"\b(avx512|avx2|neon|scalar)\b", "KERNEL"),
    (r"\b[\d,]+ KiB", "N KiB"),
    (r"(?m)^packed .*", "packed"),
    (r"agree, largest error \S+", "agree, largest error E"),
    (r"output \[\d+, 0\] is \S+ expected \S+", "output is"),
]


def replay(page: str, folder: Path) -> str:
    """The page with every block of it run again."""

    def again(block: re.Match[str]) -> str:
        if block[1] == "python":
            exec(block[2], {})
            return block[0]
        lines = []
        for line in re.findall(r"(?m)^\$ (.*)$", block[2]):
            script = 'clstm() { "$0" -m clstm "$@"; }; ' + line
            done = subprocess.run(
                ["/bin/sh", "-c", script, sys.executable], cwd=folder, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            lines += [f"$ {line}\n", done.stdout]
        return f"```console\n{''.join(lines)}```"

    return re.sub(r"```(console|python)\n(.*?)```", again, page, flags=re.DOTALL)


def test_the_page_is_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    found = replay(page, tmp_path)
    pages = [page, found]
    for pattern, word in MACHINE:
        pages = [re.sub(pattern, word, text) for text in pages]
    before, after = (re.sub(r"(?s)\$ clstm config\n.*?```", "", text) for text in pages)
    assert after == before
    shown = [re.findall(r"(?m)^(\w+): ", text[text.index("$ clstm config") :]) for text in pages]
    assert shown[0] == shown[1] == list(clstm.show_config("dict") or {})
