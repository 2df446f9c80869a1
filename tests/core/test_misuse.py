# SPDX-License-Identifier: MIT
"""What a sceptical user tried, each with the answer that it should have had."""

import numpy as np
import pytest
import torch

import clstm
import samples
from clstm import nn


def test_hooks_change_what_a_module_computes_and_are_refused():
    module = torch.nn.LSTM(3, 4)
    module.register_forward_hook(lambda m, i, o: (o[0] + 1, o[1]))
    with pytest.raises(clstm.UnsupportedError, match="forward hooks"):
        clstm.from_torch(module)
    sequence = torch.nn.Sequential(torch.nn.LSTM(3, 4))
    sequence.register_forward_pre_hook(lambda m, i: None)
    with pytest.raises(clstm.UnsupportedError, match="forward hooks"):
        clstm.from_torch(sequence)


def test_weight_normalisation_names_the_line_that_removes_it():
    module = torch.nn.LSTM(3, 4)
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    with pytest.raises(clstm.UnsupportedError, match="remove_parametrizations"):
        clstm.from_torch(module)


def test_a_checkpoint_for_a_state_dict_is_named():
    state = {"state_dict": torch.nn.LSTM(3, 4).state_dict(), "epoch": 3}
    with pytest.raises(clstm.ModelFormatError, match=r"pass mapping\['state_dict'\]"):
        clstm.from_state_dict(state)
    with pytest.raises(TypeError, match="state dict"):
        clstm.from_state_dict([1])


def test_one_description_may_stand_alone():
    tensors = samples.lstm_tensors(samples.rng_of(0), 3, 4)
    assert clstm.from_state_dict(tensors, layers=nn.LSTM()).input_size == 3


@pytest.mark.parametrize("threads", [257, 2**40, 2**70])
def test_a_number_of_threads_that_is_too_large_is_named(threads):
    tensors = samples.lstm_tensors(samples.rng_of(0), 3, 4)
    with pytest.raises(ValueError, match=f"threads={threads}: at most 256"):
        clstm.from_state_dict(tensors, threads=threads)


def test_saving_to_no_folder_names_it(tmp_path):
    m = clstm.from_state_dict(samples.lstm_tensors(samples.rng_of(0), 3, 4))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        m.save(tmp_path / "nowhere" / "m.clstm")


def test_an_object_that_is_no_array_is_named_once():
    m = clstm.from_state_dict(samples.lstm_tensors(samples.rng_of(0), 3, 4))
    with pytest.raises(clstm.DTypeError) as caught:
        m.stream().run(None)
    assert str(caught.value).count("expected an array") == 1
    assert np.isfinite(m(np.ones((2, 3)))[0]).all()
