# SPDX-License-Identifier: MIT
"""A long form that was stopped goes on where it was, and never with results of something else."""

import argparse
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

import long_form


def run(parts, work, path, of="one"):
    return long_form.results(parts, work, of=of, resume=path, executor=ThreadPoolExecutor(2))


def never(part):
    raise AssertionError(part)


def test_what_is_done_is_not_done_again(tmp_path):
    path, called = tmp_path / "file", []

    def work(part):
        called.append(part)
        if part == 3:
            raise RuntimeError("stopped")
        return {"square": part * part}

    with pytest.raises(RuntimeError):
        run([1, 2, 3], work, path)
    assert sorted(called) == [1, 2, 3]
    done = [json.loads(line)["part"] for line in path.read_text().splitlines()[1:]]
    assert 3 not in done
    called.clear()
    found = run([1, 2, 3], lambda part: called.append(part) or {"square": part * part}, path)
    assert found == [{"square": 1}, {"square": 4}, {"square": 9}]  # in their order
    assert sorted(called) == sorted({1, 2, 3} - set(done))
    assert run([3, 1], never, path) == [{"square": 9}, {"square": 1}]


def test_a_line_that_was_cut_off_is_done_again(tmp_path):
    path = tmp_path / "file"
    run([1, 2], str, path)
    path.write_text(path.read_text()[:-4])
    assert run([1, 2], str, path) == ["1", "2"]
    assert run([1, 2], never, path) == ["1", "2"]


@pytest.mark.parametrize("text", ['{"of": "other"}\n', "", "{", '{"part": 1, "result": 2}\n'])
def test_a_file_of_something_else_is_refused(tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(SystemExit, match="of another run"):
        run([1], never, path)
    assert path.read_text() == text


def test_without_a_file_nothing_is_kept(tmp_path, capsys):
    assert run([2, 1], str, None) == ["2", "1"]
    assert "2 of 2" in capsys.readouterr().err and not list(tmp_path.iterdir())
    options = long_form.arguments("what").parse_args([])
    assert options == argparse.Namespace(resume=None, threads=1)
