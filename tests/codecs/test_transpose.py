from __future__ import annotations

import itertools

import numpy as np
import pytest

from azarr.codecs.transpose import Transpose
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec


def spec_of(*shape):
    return ChunkSpec(shape, np.dtype("i4"), np.int32(5))


@pytest.mark.parametrize("order", [order for ndim in range(5) for order in itertools.permutations(range(ndim))], ids=repr)
def test_encoded_axis_i_is_decoded_axis_order_i(order):
    shape = tuple(range(2, 2 + len(order)))
    chunk = np.arange(np.prod(shape, dtype=int), dtype="i4").reshape(shape)
    spec = spec_of(*shape)
    codec = Transpose(order).bind(spec)
    encoded = codec.encode(chunk, spec)
    resolved = codec.resolve(spec)
    assert encoded.shape == resolved.shape == tuple(shape[axis] for axis in order)
    for where in itertools.product(*map(range, encoded.shape)):
        there = [0] * len(order)
        for axis, index in zip(order, where, strict=True):
            there[axis] = index
        assert encoded[where] == chunk[tuple(there)]
    assert np.array_equal(codec.decode(encoded, spec), chunk)
    assert (resolved.dtype, resolved.fill_value) == (spec.dtype, spec.fill_value)


def test_both_directions_are_views():
    chunk = np.zeros((2, 3, 4), "i4")
    spec = spec_of(2, 3, 4)
    codec = Transpose((1, 2, 0)).bind(spec)
    encoded = codec.encode(chunk, spec)
    assert np.shares_memory(encoded, chunk)
    assert np.shares_memory(codec.decode(encoded, spec), chunk)


@pytest.mark.parametrize(("letter", "axes"), [("C", (0, 1, 2)), ("F", (2, 1, 0))])
def test_letters_become_axes_when_bound(letter, axes):
    codec = Transpose.from_configuration({"order": letter})
    assert codec.configuration() == {"order": letter}
    assert codec.bind(spec_of(2, 3, 4)) == Transpose(axes)
    with pytest.raises(CodecError, match="bound"):
        codec.encode(np.zeros((2, 3, 4), "i4"), spec_of(2, 3, 4))


@pytest.mark.parametrize("order", [(), (0,), (0, 0), (1, 2), (0, 2), (-1, 0), (0, 1, 2)], ids=repr)
def test_what_is_no_permutation_of_the_axes_is_refused(order):
    with pytest.raises(MetadataError, match="not a permutation of the 2 axes"):
        Transpose(order).bind(spec_of(2, 3))


@pytest.mark.parametrize("order", ["A", "c", 0, None, {}, [0, "1"], [0, 1.0], [True, False], [[0], [1]]], ids=repr)
def test_illegal_orders(order):
    with pytest.raises(MetadataError, match="codec 'transpose'"):
        Transpose.from_configuration({"order": order})


@pytest.mark.parametrize("configuration", [{}, {"order": [0], "axes": [0]}], ids=repr)
def test_the_configuration_is_the_order_and_nothing_else(configuration):
    with pytest.raises(MetadataError, match="codec 'transpose'"):
        Transpose.from_configuration(configuration)


def test_configurations_round_trip():
    codec = Transpose.from_configuration({"order": [1, 0]})
    assert codec == Transpose((1, 0))
    assert codec.configuration() == {"order": [1, 0]}
