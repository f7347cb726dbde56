"""Pipelines that work in another process do what they do at home, for every kind of codec, data type and layout."""

from __future__ import annotations

import os
import pickle
import threading
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from azarr import codecs
from azarr import process_pipeline as module
from azarr.codecs import scratch
from azarr.codecs.fields import FieldPipeline
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import ChecksumError, CodecError
from azarr.process_pipeline import ProcessPipeline
from azarr.types import ChunkSpec
from azarr.worker_process import WorkerProcess
from tests.pure_codecs import Failing, Homebound, Picky, Rotate, Whereabouts

HOUSE = threading.local()
"""Where the pipelines here look for the process of their thread."""

NUMBERS = count()

PIPELINES = {
    "plain": [codecs.Bytes()],
    "big": [codecs.Bytes("big")],
    "zstd": [codecs.Bytes(), codecs.Zstd()],
    "zstd of a checksum": [codecs.Bytes(), codecs.Crc32c(), codecs.Zstd()],
    "F, blosc": [codecs.Transpose("F"), codecs.Bytes(), codecs.Blosc("lz4", 3, "bitshuffle")],
    "gzip": [codecs.Bytes("big"), codecs.Gzip(1)],
    "pure": [codecs.Bytes(), Rotate(3), codecs.Crc32c()],
    "base64": [codecs.Bytes(), codecs.Base64()],
    "shuffle, lzma": [codecs.Bytes(), codecs.Shuffle(4), codecs.Lzma()],
}
DTYPES = ["u1", "?", "i2", "u4", "<f4", ">f8", "c16", "M8[s]", "S3", "<U2", "V5", [("x", "i4"), ("y", "f8", 2)]]


@pytest.fixture(scope="module", autouse=True)
def worker():
    HOUSE.worker = made = WorkerProcess()
    yield made
    del HOUSE.worker
    made.close()


def placed(plain, *, tolerant=False):
    return ProcessPipeline(plain, HOUSE, next(NUMBERS), pickle.dumps(plain), placed, tolerant=tolerant)


def spec_of(shape, dtype):
    dtype = np.dtype(dtype)
    return ChunkSpec(tuple(shape), dtype, np.zeros((), dtype)[()])


def same(left, right):
    return left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    name=st.sampled_from(sorted(PIPELINES)),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(1, 7), max_size=3),
    seed=st.integers(0, 2**32 - 1),
    in_scratch=st.booleans(),
)
def test_it_does_what_the_plain_one_does(name, dtype, shape, seed, in_scratch):
    spec = spec_of(shape, dtype)
    assume("shuffle" not in name or spec.nbytes % 4 == 0)
    filters = [codec.bind(spec) if not isinstance(codec, codecs.Transpose) or len(shape) > 1 else None for codec in PIPELINES[name]]
    plain = CodecPipeline([codec for codec in filters if codec is not None], spec)
    moved = placed(plain)
    chunk = np.random.default_rng(seed).integers(0, 2, spec.nbytes, dtype="u1").view(spec.dtype).reshape(spec.shape)
    data = plain.encode(chunk)
    assert bytes(moved.encode(chunk)) == bytes(data)
    if in_scratch:
        memory = scratch.encoded.reserve(len(data))
        memory[:] = data
        data = memory
    own = moved.decode(data)
    assert same(own, chunk)
    own[...] = own
    out = np.empty((*spec.shape, 2), spec.dtype)[..., 0]
    moved.decode_into(data, out)
    assert same(out, chunk)
    assert same(moved.decode_scratch(data), chunk)
    assert not moved.decode_scratch(data).flags.writeable
    whole = np.empty(spec.shape, spec.dtype)
    moved.decode_into(data, whole)
    assert same(whole, chunk)


@pytest.mark.parametrize("name", ["zstd", "pure"])
def test_a_row_is_one_request(name, worker):
    spec = spec_of((50,), "i4")
    plain = CodecPipeline(PIPELINES[name], spec)
    moved = placed(plain)
    assert moved.joinable
    chunks = np.arange(200, dtype="i4").reshape(4, 50)
    parts = [plain.encode(chunk) for chunk in chunks]
    out = np.empty((4, 50), "i4")
    assert moved.decode_joined_into(b"".join(parts) + b"more", [len(part) for part in parts], memoryview(out).cast("B"))
    assert (out == chunks).all()
    parts[2] = bytes(len(parts[2]))
    assert not moved.decode_joined_into(b"".join(parts), [len(part) for part in parts], memoryview(out).cast("B"))


@pytest.mark.parametrize("name", ["zstd", "pure", "F, blosc", "base64"])
def test_chunks_that_are_encoded_one_after_the_other_share_requests(name, worker, monkeypatch):
    spec = spec_of((5, 10), "i4")
    plain = CodecPipeline([codec.bind(spec) for codec in PIPELINES[name]], spec)
    moved = placed(plain)
    monkeypatch.setattr(module, "GIVEN_NBYTES", 3 * spec.nbytes + 1)
    chunks = np.arange(8 * 50, dtype="i4").reshape(8, 5, 10)
    taken, asked, encode = [], [], worker.encode
    monkeypatch.setattr(worker, "encode", lambda *args: (asked.append(len(args[2])), encode(*args))[1], raising=False)
    found = moved.encode_each(taken.append(number) or chunk for number, chunk in enumerate(chunks))
    assert bytes(next(found)) == bytes(plain.encode(chunks[0]))
    assert taken == [0, 1, 2], "no more are taken than are encoded together"
    assert [bytes(each) for each in found] == [bytes(plain.encode(chunk)) for chunk in chunks[1:]]
    assert asked == [3, 3, 2]


def test_of_chunks_that_share_a_request_one_that_is_refused_fails_alone(monkeypatch):
    spec = spec_of((4,), "u1")
    moved = placed(CodecPipeline([codecs.Bytes(), Picky(refused=2)], spec))
    assert moved.together > 4
    found = moved.encode_each(np.full(4, number, "u1") for number in range(5))
    assert [bytes(next(found)), bytes(next(found))] == [bytes(4), bytes([1] * 4)]
    with pytest.raises(CodecError, match="not this one"):
        next(found)


def test_chunks_that_the_process_refuses_are_encoded_here_one_after_the_other_if_that_is_wanted():
    plain = CodecPipeline([codecs.Bytes(), Homebound()], spec_of((10,), "i4"))
    chunks = [np.full(10, number, "i4") for number in range(3)]
    assert [bytes(each) for each in placed(plain, tolerant=True).encode_each(chunks)] == [bytes(plain.encode(chunk)) for chunk in chunks]
    with pytest.raises(CodecError, match="stays at home"):
        list(placed(plain).encode_each(chunks))


def test_a_field_is_decoded_alone_and_encoded_with_the_others():
    spec = spec_of((20,), [("x", "i2"), ("y", "f8")])
    plain = CodecPipeline([codecs.Bytes(), codecs.Zstd()], spec)
    moved = placed(FieldPipeline(plain, ("y",)))
    chunk = np.zeros(20, spec.dtype)
    chunk["y"] = np.arange(20)
    assert moved.field == ("y",)
    assert isinstance(moved.whole, ProcessPipeline)
    data = moved.whole.encode(chunk)
    assert (moved.decode(data) == np.arange(20)).all()
    assert moved.rebound(replace(moved.spec, shape=(10,))).spec.shape == (10,)
    with pytest.raises(TypeError, match="alone"):
        moved.encode(chunk["y"])


def test_a_chunk_of_another_shape_goes_there_too():
    plain = CodecPipeline(PIPELINES["pure"], spec_of((4, 4), "f4"))
    moved = placed(plain).rebound(spec_of((3, 2), "f4"))
    chunk = np.ones((3, 2), "f4")
    assert isinstance(moved, ProcessPipeline)
    assert (moved.decode(moved.encode(chunk)) == chunk).all()
    assert moved.whole is moved


def test_a_pickled_copy_is_the_plain_one():
    copy = pickle.loads(pickle.dumps(placed(CodecPipeline(PIPELINES["zstd"], spec_of((3,), "i4")))))
    assert type(copy) is CodecPipeline


def test_errors_are_those_of_the_codecs():
    spec = spec_of((100,), "f8")
    moved = placed(CodecPipeline([codecs.Bytes(), codecs.Crc32c()], spec))
    data = bytearray(moved.encode(np.ones(100)))
    with pytest.raises(CodecError, match="checksum"):
        moved.decode(data[:50])
    with pytest.raises(CodecError):
        moved.decode(b"")
    data[3] ^= 1
    with pytest.raises(ChecksumError) as caught:
        moved.decode(data)
    assert caught.value.codec == "crc32c"
    with pytest.raises(CodecError, match="KeyError"):
        placed(CodecPipeline([codecs.Bytes(), Failing(KeyError("k"))], spec)).decode(bytes(800))


def test_what_the_process_refuses_is_done_here_if_that_is_wanted():
    plain = CodecPipeline([codecs.Bytes(), Homebound()], spec_of((10,), "i4"))
    chunk = np.arange(10, dtype="i4")
    tolerant = placed(plain, tolerant=True)
    assert (tolerant.decode(tolerant.encode(chunk)) == chunk).all()
    strict = placed(plain)
    for _ in range(2):
        with pytest.raises(CodecError, match="stays at home"):
            strict.decode(bytes(40))
        with pytest.raises(CodecError, match="stays at home"):
            strict.encode(chunk)


def test_a_thread_without_a_process_does_it_itself():
    moved = placed(CodecPipeline([codecs.Bytes(), Whereabouts()], spec_of((1,), "u8")))
    found = []
    thread = threading.Thread(target=lambda: found.append(int(moved.decode(bytes(8))[0])))
    thread.start()
    thread.join()
    assert found == [os.getpid()]
    assert int(moved.decode(bytes(8))[0]) != os.getpid()
