# SPDX-License-Identifier: MIT
"""docs/supported.md says what runs here."""

from supported_table import PAGE, text


def test_the_page_is_what_runs(blocked):
    assert PAGE.read_text() == text(blocked), "write it again: supported_table.py"
