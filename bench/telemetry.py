"""What telemetry costs: at an event site when nobody listens, and for a span when somebody does. ``python bench/telemetry.py``"""

import timeit

from azarr.telemetry import StoreRequestEvent, Telemetry

TIMES, ROUNDS = 200_000, 5


def nanoseconds(statement, **names):
    timer = timeit.Timer(statement, globals=names)
    return min(timer.repeat(ROUNDS, TIMES)) / TIMES * 1e9


def main():
    telemetry = Telemetry()
    empty = nanoseconds("pass")
    span = 'telemetry.begin(StoreRequestEvent, store="S", operation="get", key="c/0/0").stop(nbytes=4096)'
    print(f"nobody listens: if telemetry.active   {nanoseconds('if telemetry.active: pass', telemetry=telemetry) - empty:8.0f} ns")
    print(f"nobody listens: telemetry.wants(name) {nanoseconds('telemetry.wants(name)', telemetry=telemetry, name='read') - empty:8.0f} ns")
    for events in ("store.request.stop", "store.request"):
        with telemetry.subscribe(lambda _: None, events=events):
            print(f"a span, for {events:25} {nanoseconds(span, telemetry=telemetry, StoreRequestEvent=StoreRequestEvent):8.0f} ns")


if __name__ == "__main__":
    main()
