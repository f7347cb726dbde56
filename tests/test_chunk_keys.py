import pickle
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr
from azarr.chunk_keys import ChunkKeyEncoding, SeparatedKeys, parse_chunk_key_encoding, register_chunk_key_encoding
from azarr.errors import MetadataError, RegistrationError, UnknownExtensionError

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

ENCODINGS = [SeparatedKeys(name, separator) for name in ("default", "v2") for separator in ("/", ".")]
encodings = st.sampled_from(ENCODINGS)
coords = st.lists(st.integers(0, 10**18), max_size=5).map(tuple)


@pytest.mark.parametrize(
    ("name", "separator", "key", "scalar"),
    [("default", "/", "c/1/23/45", "c"), ("default", ".", "c.1.23.45", "c"), ("v2", ".", "1.23.45", "0"), ("v2", "/", "1/23/45", "0")],
)
def test_examples_of_the_specification(name, separator, key, scalar):
    encoding = SeparatedKeys(name, separator)
    assert encoding.encode((1, 23, 45)) == key
    assert encoding.decode(key) == encoding.decode(key, 3) == (1, 23, 45)
    assert encoding.encode(()) == scalar
    assert encoding.decode(scalar, 0) == ()


@patient
@given(encoding=encodings, coords=coords)
def test_decode_undoes_encode(encoding, coords):
    assert encoding.decode(encoding.encode(coords), len(coords)) == coords
    if coords:
        assert encoding.decode(encoding.encode(coords)) == coords


@patient
@given(encoding=encodings, leading=coords, last=st.integers(0, 10**18))
def test_row_prefix_and_last_coordinate_make_the_key(encoding, leading, last):
    assert encoding.row_prefix(leading) + str(last) == encoding.encode((*leading, last))


@patient
@given(encoding=encodings, key=st.text("c0123456789/.-+ zarjson\u0663", max_size=12), ndim=st.none() | st.integers(0, 3))
def test_only_keys_that_encode_would_give_are_decoded(encoding, key, ndim):
    found = encoding.decode(key, ndim)
    if found is not None:
        assert encoding.encode(found) == key
        assert ndim in {None, len(found)}


@pytest.mark.parametrize(
    "key",
    [
        "",
        "c",
        "c/",
        "c/01",
        "c/+1",
        "c/-1",
        "c/1/",
        "c//1",
        "/c/1",
        "c.1",
        "1",
        "zarr.json",
        "c/\u0663",
        "c/1_0",
        "c/ 1",
        "c/1\n",
        "c/" + "9" * 5000,
    ],
)
def test_keys_that_are_no_chunks_of_an_array_with_one_dimension(key):
    assert SeparatedKeys("default", "/").decode(key, 1) is None


@pytest.mark.parametrize("key", [".zarray", "", ".", "0.", "c", "0/1"])
def test_keys_that_are_no_chunks_in_v2(key):
    assert SeparatedKeys("v2", ".").decode(key) is None


def test_the_number_of_dimensions_tells_keys_apart():
    assert SeparatedKeys("v2", ".").decode("0") == (0,)
    assert SeparatedKeys("v2", ".").decode("0", 1) == (0,)
    assert SeparatedKeys("v2", ".").decode("0", 0) == ()
    assert SeparatedKeys("v2", ".").decode("1", 0) is None
    assert SeparatedKeys("v2", ".").decode("0.0", 1) is None
    assert SeparatedKeys("default", "/").decode("c") == ()
    assert SeparatedKeys("default", "/").decode("c/0", 0) is None


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_round_trip(encoding):
    assert parse_chunk_key_encoding(encoding.to_json(), "/a") == encoding
    assert pickle.loads(pickle.dumps(encoding)) == encoding


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("default", SeparatedKeys("default", "/")),
        ("v2", SeparatedKeys("v2", ".")),
        ({"name": "default"}, SeparatedKeys("default", "/")),
        ({"name": "v2", "configuration": {}}, SeparatedKeys("v2", ".")),
        ({"name": "v2", "configuration": {"separator": "/"}, "must_understand": True}, SeparatedKeys("v2", "/")),
    ],
)
def test_short_forms(document, expected):
    assert parse_chunk_key_encoding(document, "/a") == expected


@pytest.mark.parametrize(
    "document",
    [
        None,
        7,
        [],
        {},
        {"name": None},
        {"name": "default", "must_understand": False},
        {"name": "default", "separator": "/"},
        {"name": "default", "configuration": []},
        {"name": "default", "configuration": {"separator": "-"}},
        {"name": "default", "configuration": {"separator": ""}},
        {"name": "default", "configuration": {"separator": None}},
        {"name": "default", "configuration": {"separator": ["/"]}},
        {"name": "default", "configuration": {"separator": "/", "suffix": ".tiff"}},
    ],
)
def test_malformed_documents_are_refused(document):
    with pytest.raises(MetadataError, match=r"^/a: .*chunk.key") as caught:
        parse_chunk_key_encoding(document, "/a")
    assert caught.value.path == "/a"


@pytest.mark.parametrize("document", ["suffix", {"name": "suffix", "configuration": {"suffix": ".tiff"}}])
def test_unknown_encodings_are_named(document):
    with pytest.raises(UnknownExtensionError, match="'suffix'; azarr has default, v2, and no plug-in has it") as caught:
        parse_chunk_key_encoding(document, "/a")
    assert caught.value.name == "suffix"


# Encodings of users


@dataclass(frozen=True)
class Suffixed(ChunkKeyEncoding):
    """The keys of ``default`` with something behind them."""

    suffix: str = ".bin"
    name: ClassVar[str] = "test.suffixed"

    def encode(self, coords):
        return SeparatedKeys().encode(coords) + self.suffix

    def decode(self, key, ndim=None):
        return SeparatedKeys().decode(key.removesuffix(self.suffix), ndim) if key.endswith(self.suffix) else None

    def to_json(self):
        return {"name": self.name, "configuration": {"suffix": self.suffix}}


@pytest.mark.parametrize("where", ["memory", "local"])
async def test_a_registered_encoding_says_where_chunks_are(where, tmp_path):
    store = azarr.MemoryStore() if where == "memory" else azarr.LocalStore(tmp_path)
    with register_chunk_key_encoding(Suffixed.name, lambda configuration: Suffixed(**configuration)):
        encoding = {"name": Suffixed.name, "configuration": {"suffix": ".x"}}
        array = await azarr.create_array(store, "a", shape=(4, 40), chunks=(2, 2), dtype="i4", chunk_key_encoding=encoding)
        await array.write(np.arange(160).reshape(4, 40))
        assert {key async for key in store.list_prefix("a/c/1/")} == {f"a/c/1/{number}.x" for number in range(20)}
        opened = await azarr.open_array(store, "a")
        assert opened.metadata.chunk_key_encoding == Suffixed(".x")
        np.testing.assert_array_equal(await opened.read(), np.arange(160).reshape(4, 40))
        copy = await azarr.copy(opened, store, "b")
        assert copy.metadata.chunk_key_encoding == Suffixed(".x")
        np.testing.assert_array_equal(await copy.read(), np.arange(160).reshape(4, 40))
        with pytest.raises(MetadataError, match=r"Zarr v2 cannot express the chunk key encoding 'test\.suffixed'"):
            await azarr.create_array(store, "c", like=array, chunk_key_encoding=Suffixed(), zarr_format=2)
    with pytest.raises(UnknownExtensionError, match=r"unknown chunk key encoding 'test\.suffixed'"):
        await azarr.open_array(store, "a")


def test_an_encoding_is_replaced_only_on_purpose():
    with pytest.raises(RegistrationError, match="chunk key encoding 'v2' is that of azarr already"):
        register_chunk_key_encoding("v2", lambda _: Suffixed())
    with register_chunk_key_encoding("v2", lambda _: Suffixed(), replace=True):
        assert parse_chunk_key_encoding("v2", "/") == Suffixed()
    assert parse_chunk_key_encoding("v2", "/") == SeparatedKeys("v2", ".")


def test_an_encoding_that_cannot_be_made_is_refused():
    with pytest.raises(TypeError, match="needs a function from a configuration"):
        register_chunk_key_encoding("test.suffixed", Suffixed())
