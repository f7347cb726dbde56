import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from azarr.chunk_keys import ChunkKeyEncoding, parse_chunk_key_encoding
from azarr.errors import MetadataError, UnknownExtensionError

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

ENCODINGS = [ChunkKeyEncoding(name, separator) for name in ("default", "v2") for separator in ("/", ".")]
encodings = st.sampled_from(ENCODINGS)
coords = st.lists(st.integers(0, 10**18), max_size=5).map(tuple)


@pytest.mark.parametrize(
    ("name", "separator", "key", "scalar"),
    [("default", "/", "c/1/23/45", "c"), ("default", ".", "c.1.23.45", "c"), ("v2", ".", "1.23.45", "0"), ("v2", "/", "1/23/45", "0")],
)
def test_examples_of_the_specification(name, separator, key, scalar):
    encoding = ChunkKeyEncoding(name, separator)
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
    assert ChunkKeyEncoding("default", "/").decode(key, 1) is None


@pytest.mark.parametrize("key", [".zarray", "", ".", "0.", "c", "0/1"])
def test_keys_that_are_no_chunks_in_v2(key):
    assert ChunkKeyEncoding("v2", ".").decode(key) is None


def test_the_number_of_dimensions_tells_keys_apart():
    assert ChunkKeyEncoding("v2", ".").decode("0") == (0,)
    assert ChunkKeyEncoding("v2", ".").decode("0", 1) == (0,)
    assert ChunkKeyEncoding("v2", ".").decode("0", 0) == ()
    assert ChunkKeyEncoding("v2", ".").decode("1", 0) is None
    assert ChunkKeyEncoding("v2", ".").decode("0.0", 1) is None
    assert ChunkKeyEncoding("default", "/").decode("c") == ()
    assert ChunkKeyEncoding("default", "/").decode("c/0", 0) is None


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_json_round_trip(encoding):
    assert parse_chunk_key_encoding(encoding.to_json(), "/a") == encoding
    assert pickle.loads(pickle.dumps(encoding)) == encoding


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ("default", ChunkKeyEncoding("default", "/")),
        ("v2", ChunkKeyEncoding("v2", ".")),
        ({"name": "default"}, ChunkKeyEncoding("default", "/")),
        ({"name": "v2", "configuration": {}}, ChunkKeyEncoding("v2", ".")),
        ({"name": "v2", "configuration": {"separator": "/"}, "must_understand": True}, ChunkKeyEncoding("v2", "/")),
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
    with pytest.raises(UnknownExtensionError, match="'suffix'; azarr has 'default' and 'v2'") as caught:
        parse_chunk_key_encoding(document, "/a")
    assert caught.value.name == "suffix"
