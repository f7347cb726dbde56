from __future__ import annotations

import numcodecs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.base64 import Base64
from azarr.errors import CodecError, MetadataError


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_the_bytes_of_numcodecs(data):
    encoded = Base64().encode(memoryview(data))
    assert encoded == bytes(numcodecs.Base64().encode(data or b""))
    assert len(encoded) == Base64().encoded_size(len(data))
    assert Base64().decode(bytearray(encoded), len(data)) == data


@pytest.mark.parametrize("value", [b"a", b"YWI", b"YW I=", b"YWI=x", b"Y\nWI=", b"=YWI", b"YW$I"])
def test_what_is_no_text_of_base64_is_refused(value):
    with pytest.raises(CodecError, match="cannot decode"):
        Base64().decode(value, 100)


@pytest.mark.parametrize("nbytes", [1, 2, 3, 1000])
def test_too_much_is_refused(nbytes):
    with pytest.raises(CodecError, match="more than the"):
        Base64().decode(Base64().encode(bytes(nbytes)), nbytes - 1)


def test_configuration():
    assert Base64.from_configuration({}).configuration() == {}
    with pytest.raises(MetadataError, match="base64"):
        Base64.from_configuration({"alphabet": "url"})
