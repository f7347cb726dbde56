"""Tests for those who extend azarr: ``StoreSuite`` shows whether a store keeps every promise that azarr relies on. Needs pytest."""

import pytest

pytest.register_assert_rewrite("azarr.testing.store_suite")

from azarr.testing.store_suite import StoreSuite  # noqa: E402 - only modules imported after the line above explain their assertions

__all__ = ["StoreSuite"]
