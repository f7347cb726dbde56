"""Tools for tests of what is built on azarr; they need pytest.

``StoreSuite`` shows whether a store keeps every promise that azarr relies on, ``TelemetryRecorder`` what an operation costs,
``FaultyStore`` and ``FaultProxy`` what becomes of a program whose store fails, or whose network does. What the proxy can let go
wrong is in ``azarr.testing.faults``.
"""

import pytest

pytest.register_assert_rewrite("azarr.testing.store_suite", "azarr.testing.sharing_suite", "azarr.testing.values")

# only modules imported after the line above explain their assertions
from azarr.testing.fault_proxy import FaultProxy  # noqa: E402
from azarr.testing.faulty_store import FaultyStore, StoreRequest  # noqa: E402
from azarr.testing.store_suite import StoreSuite  # noqa: E402
from azarr.testing.telemetry_recorder import TelemetryRecorder  # noqa: E402

__all__ = ["FaultProxy", "FaultyStore", "StoreRequest", "StoreSuite", "TelemetryRecorder"]
