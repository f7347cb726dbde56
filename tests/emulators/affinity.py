"""A store in all the loops that programs have, in a process of its own where every warning is an error.

``python -W error affinity.py FILE`` gets the pickled store from ``FILE``; it has to hold ``"value"`` at ``"key"``.
"""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
import warnings
from importlib.util import find_spec
from pathlib import Path


def check(store, folder):
    """Fails unless ``store`` serves all loops and leaves nothing behind."""
    file = Path(folder) / "store.pickle"
    file.write_bytes(pickle.dumps(store))
    done = subprocess.run([sys.executable, "-W", "error", __file__, file], capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("done\n", "", 0), done.stderr


async def use(store):
    assert bytes(await store.get("key")) == b"value"
    assert await asyncio.gather(*(store.size("key") for _ in range(10))) == [5] * 10
    assert await store.get("missing") is None


async def use_and_fork(store):
    await use(store)
    in_child(store)
    await use(store)


def in_child(store):
    """The parent's connections must not be touched by a child that was forked, whatever its parent does at that moment."""
    child = os.fork()
    if not child:
        code = 1
        # MongoDB's driver forgets its connections in a child, which closes nothing but the child's copies
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            thread = threading.Thread(target=lambda: codes.append(asyncio.run(use(store))))
            codes = []
            thread.start()
            thread.join()
            code = 0 if codes == [None] else 1
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


async def use_and_close(store):
    await use(store)
    await store.aclose()


async def use_and_forget(file):
    await use(pickle.loads(file))
    gc.collect()
    await asyncio.sleep(0.1)  # some drivers need a few turns of the loop for closing
    gc.collect()


def main(file):
    store = pickle.loads(Path(file).read_bytes())
    for _ in range(3):
        asyncio.run(use(store))
    failures = []
    threading.excepthook = failures.append
    threads = [threading.Thread(target=asyncio.run, args=[use(store)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    asyncio.run(use_and_fork(store))
    in_child(store)
    if find_spec("uvloop"):
        import uvloop

        uvloop.run(use(store))
    asyncio.run(use_and_forget(pickle.dumps(store)))
    asyncio.run(use_and_close(pickle.loads(pickle.dumps(store))))
    asyncio.run(use_and_close(store))
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(sys.argv[1])
