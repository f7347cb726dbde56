"""The error for encoded bytes that are not what they were when they were written."""

from __future__ import annotations

from azarr.errors import CodecError


def damaged(codec: str, finding: str, kind: type[CodecError] = CodecError) -> CodecError:
    """An error that says what was found and what to do about it."""
    return kind(f"{finding}; the value is damaged: restore it or write it again", codec=codec)
