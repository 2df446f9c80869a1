# SPDX-License-Identifier: MIT
"""`clstm run`: rows in, predictions out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from climaker import (
    LIST,
    Cli,
    as_csv,
    command,
    fails,
    frames,
    from_csv,
    lstm,
)

import clstm


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
        (b'"1","2","3"\n"4",5,6\n', []),
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
        (b",,\n1,2,3\n", [], ["line 1", "'' is no number"]),
        (b"$1,$2,$3\n", [], ["line 1", "'$1' is no number"]),
        (b"1a,2b,3c\n", [], ["line 1", "'1a' is no number"]),
        (b"\xff\xfe1\0,2,3\n", [], ["line 1", "is no number"]),
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
    fails(run("run", tmp_path / "b.npz", stdin=b"1,2,3\n"), "goes against time")


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
