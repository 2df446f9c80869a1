# SPDX-License-Identifier: MIT
"""Files of every released version load for ever, with the bits that they had then."""

from pathlib import Path

import numpy as np
import pytest

import clstm

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = sorted(GOLDEN.glob("v*_*.clstm"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_a_golden_file_loads_with_its_fingerprint_and_its_bits(path: Path) -> None:
    version, _, name = path.stem.partition("_")
    expected = np.load(GOLDEN / f"{version}.npz")
    m = clstm.load(path)
    assert m.fingerprint == str(expected[f"{name}.fingerprint"])
    y = m(expected[f"{name}.x"])[0]
    if not isinstance(y, tuple):
        np.testing.assert_array_equal(y, expected[f"{name}.y"])
        return
    for i, part in enumerate(y):
        np.testing.assert_array_equal(part, expected[f"{name}.y{i}"])
    assert f"{name}.y{len(y)}" not in expected


def test_there_are_golden_files() -> None:
    assert len(FILES) >= 11
