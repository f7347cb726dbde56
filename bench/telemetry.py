"""Telemetry: an event site when nobody listens, and a span when somebody does."""

from __future__ import annotations

import timeit

from azarr.telemetry import StoreRequestEvent, Telemetry


def run(bench) -> None:
    times, rounds = bench.pick(200_000, 50_000, 100), bench.rounds
    telemetry = Telemetry()
    names = {"telemetry": telemetry, "StoreRequestEvent": StoreRequestEvent, "name": "read"}
    span = 'telemetry.begin(StoreRequestEvent, store="S", operation="get", key="c/0/0").stop(nbytes=4096)'

    def nanoseconds(statement):
        return [seconds / times * 1e9 for seconds in timeit.Timer(statement, globals=names).repeat(rounds, times)]

    empty = min(nanoseconds("pass"))
    for statement in ("if telemetry.active: pass", "telemetry.wants(name)"):
        bench.add({"listeners": "none", "what": statement}, *({"ns": found - empty} for found in nanoseconds(statement)))
    for events in ("store.request.stop", "store.request"):
        with telemetry.subscribe(lambda _: None, events=events):
            bench.add({"listeners": events, "what": "a span"}, *({"ns": found} for found in nanoseconds(span)))
