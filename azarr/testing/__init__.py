"""Tools for tests of what is built on azarr; they need pytest.

``StoreSuite`` shows whether a store keeps every promise that azarr relies on, ``TelemetryRecorder`` what an operation costs.
"""

import pytest

pytest.register_assert_rewrite("azarr.testing.store_suite")

from azarr.testing.store_suite import StoreSuite  # noqa: E402 - only modules imported after the line above explain their assertions
from azarr.testing.telemetry_recorder import TelemetryRecorder  # noqa: E402 - as above

__all__ = ["StoreSuite", "TelemetryRecorder"]
