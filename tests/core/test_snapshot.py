# SPDX-License-Identifier: MIT
"""Snapshots of a stream."""

import copy
import pickle
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import clstm
import samples
from clstm import SnapshotError
from samples import ZOO, fed, made, same_bits, warm


@pytest.fixture
def lstm():
    return made("lstm")


@pytest.mark.parametrize("name", ZOO)
def test_a_snapshot_goes_on_where_it_was_taken(name):
    model = made(name)
    s, x = warm(model), fed(model, 11, 6)
    blob = s.snapshot()
    assert type(blob) is bytes
    other = model.stream(snapshot=blob)
    assert same_bits(other.state, s.state) and other.steps == 3
    assert same_bits(other.run(x), s.run(x))
    assert same_bits(
        model.stream(snapshot=memoryview(blob)).run(x), model.stream(snapshot=blob).run(x)
    )


def test_a_snapshot_fits_every_kernel_and_format_of_the_same_weights(lstm, tmp_path):
    blob, x = warm(lstm).snapshot(), fed(lstm, 1, 4)
    lstm.save(tmp_path / "m.clstm")
    lstm.save(tmp_path / "m.safetensors")
    models = [made("lstm", kernel=k) for k in clstm.available_kernels()]
    models += [clstm.load(tmp_path / f"m.{kind}") for kind in ("clstm", "safetensors")]
    expected = lstm.stream(snapshot=blob).run(x)
    assert all(same_bits(m.stream(snapshot=blob).run(x), expected) for m in models)


def test_a_snapshot_of_another_model_is_refused(lstm):
    layers, tensors = ZOO["lstm"]
    moved = {k: v + (k == "lstm.bias_hh_l1") for k, v in tensors.items()}
    others = [made("projected"), made("tokens"), clstm.from_state_dict(moved, layers=layers)]
    for other in others:
        with pytest.raises(SnapshotError, match="other layers or weights"):
            other.stream(snapshot=warm(lstm).snapshot())


def with_checksum(data):
    return data + zlib.crc32(data).to_bytes(4, "little")


def test_a_snapshot_of_another_version_is_refused_by_its_number(lstm):
    blob = warm(lstm).snapshot()
    newer = with_checksum(blob[:8] + (2).to_bytes(4, "little") + blob[12:-4])
    with pytest.raises(SnapshotError, match=r"version 2.*version 1"):
        lstm.stream(snapshot=newer)


def test_a_snapshot_with_a_wrong_count_is_refused(lstm):
    blob = warm(lstm).snapshot()
    for wrong in (blob[:-8], blob[:-4] + bytes(4), blob[:12] + bytes(4) + blob[16:-4]):
        with pytest.raises(SnapshotError):
            lstm.stream(snapshot=with_checksum(wrong))


@pytest.mark.parametrize("name", ["lstm", "no state"])
def test_a_snapshot_cut_short_at_any_length_is_refused(name):
    model = made(name)
    blob = warm(model).snapshot()
    for n in range(len(blob)):
        with pytest.raises(SnapshotError):
            model.stream(snapshot=blob[:n])
    with pytest.raises(SnapshotError):
        model.stream(snapshot=blob + b"\0")


def test_a_snapshot_with_any_bit_flipped_is_refused(lstm):
    blob = warm(lstm).snapshot()
    for i in range(len(blob) * 8):
        bad = bytearray(blob)
        bad[i // 8] ^= 1 << i % 8
        with pytest.raises(SnapshotError):
            lstm.stream(snapshot=bad)


@given(st.binary(max_size=300))
@samples.examples(200)
def test_any_other_bytes_are_a_snapshot_error(data):
    model = made("no state")
    for blob in (data, b"CLSNAP\r\n" + data, with_checksum(b"CLSNAP\r\n" + data)):
        with pytest.raises(SnapshotError):
            model.stream(snapshot=blob)


@pytest.mark.parametrize("blob", [3, "text", object(), [1, 2]])
def test_what_is_no_bytes_is_a_snapshot_error(lstm, blob):
    with pytest.raises(SnapshotError, match="expected bytes"):
        lstm.stream(snapshot=blob)


def test_state_and_snapshot_together_are_refused(lstm):
    s = warm(lstm)
    with pytest.raises(ValueError, match="one of them"):
        lstm.stream(s.state, snapshot=s.snapshot())


def test_a_stream_does_not_pickle_and_says_what_does(lstm):
    for way in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"snapshot\(\)"):
            way(lstm.stream())
