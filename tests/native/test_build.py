# SPDX-License-Identifier: MIT
"""What starts the programs of these tests."""

import errno
import sys

import pytest

import build


@pytest.mark.parametrize("number", sorted(build.SHORT_OF))
def test_a_process_that_cannot_start_now_is_started_later(number, monkeypatch):
    start, failures, pauses = build.subprocess.run, [1] * len(build.PAUSES), []

    def short_of_something(*args, **options):
        if failures:
            failures.pop()
            raise OSError(number, "not now")
        return start(*args, **options)

    monkeypatch.setattr(build.subprocess, "run", short_of_something)
    monkeypatch.setattr(build, "sleep", pauses.append)
    assert build.succeed([sys.executable, "-c", "print(7)"]) == "7\n"
    assert tuple(pauses) == build.PAUSES
    failures += [1] * (len(build.PAUSES) + 1)
    with pytest.raises(OSError, match="not now"):
        build.run([sys.executable, "-c", ""])


def test_what_is_no_program_fails_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "sleep", lambda seconds: pytest.fail("it was tried again"))
    with pytest.raises(FileNotFoundError):
        build.run([tmp_path / "nothing"])
    (tmp_path / "text").write_text("words")
    (tmp_path / "text").chmod(0o755)
    with pytest.raises(OSError) as caught:
        build.run([tmp_path / "text"])
    assert caught.value.errno == errno.ENOEXEC
