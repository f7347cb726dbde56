"""Slices put together from blocks that come in any order, as a window lets them in: each once, none waiting for ever, little held."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from azarr.axis_plans import axis_plan
from azarr.selection import AxisSelection
from azarr.slice_assembly import Assembly, Block, Target
from azarr.slice_plans import Blocks, Planes, Rows
from azarr.stream import Counts


class Stage:
    """A window of so many planes whose work ends as ``choose`` says, and the assembly behind it."""

    def __init__(self, planes, chunk, longest, limit, keep):
        rows = Rows(axis_plan(AxisSelection(0, planes.stop), chunk, planes.stop), planes.stop, backwards=False)
        self.plan = Blocks(planes, rows, longest, 0, counts=Counts(), keep=keep)
        self.items, self.limit, self.running, self.outstanding = iter(self.plan), limit, [], 0
        self.assembly = Assembly(planes, self.plan)

    def fill(self):
        while not self.outstanding or self.outstanding < self.limit:
            if (positions := next(self.items, None)) is None:
                return
            self.running.append(positions)
            self.outstanding += len(positions)

    def finish(self, number):
        positions = self.running.pop(number)
        self.assembly.add([Block(positions, positions[:, None] * [1, 10])], len(positions))
        self.release()

    def release(self):
        self.outstanding -= self.assembly.freed()
        assert self.outstanding >= sum(map(len, self.running))


@given(
    length=st.integers(1, 60),
    chunk=st.integers(1, 12),
    step=st.integers(1, 20),
    thickness=st.integers(1, 20),
    longest=st.integers(1, 12),
    more=st.integers(0, 30),
    unwanted=st.sets(st.integers(0, 60)),
    ordered=st.booleans(),
    data=st.data(),
)
def test_every_slice_comes_once_and_little_is_held(length, chunk, step, thickness, longest, more, unwanted, ordered, data):
    planes, limit = Planes(0, range(0, length, step), length, thickness, dropped=False), longest + more
    stage, came = Stage(planes, chunk, longest, limit, lambda start: start not in unwanted), []
    target = Target((length, 2), np.dtype("i8"), 0, 1)
    stage.fill()
    while stage.running:
        stage.finish(0 if ordered else data.draw(st.integers(0, len(stage.running) - 1)))
        held = sum(len(block.positions) for block in stage.assembly.waiting())
        assert held + sum(map(len, stage.running)) <= limit + thickness + 3 * longest
        while stage.assembly.ready:
            low, high, blocks = stage.assembly.take()
            made = target.room(high - low)
            target.fill(made, blocks, low)
            np.testing.assert_array_equal(made, np.arange(low, high)[:, None] * [1, 10])
            came.append(low)
            stage.release()
        stage.fill()
    wanted = [start for start in planes.starts if start not in unwanted]
    assert came == wanted if ordered else sorted(came) == wanted


def test_a_slice_that_failed_is_told_by_its_blocks():
    planes = Planes(0, range(0, 4, 2), 4, 2, dropped=False)
    stage, error = Stage(planes, 2, 2, 4, None), ValueError("damaged")
    stage.fill()
    first, second = stage.running
    stage.assembly.add([Block(second[:1], error), Block(second[1:], np.zeros(1))], 2)
    stage.assembly.add([Block(first, np.zeros(2))], 2)
    low, high, blocks = stage.assembly.take()
    assert (low, high) == (2, 4)
    assert [block.data is error for block in blocks] == [True, False]
    assert stage.assembly.freed() == 4
    stage.assembly.clear()
    assert not stage.assembly.ready
    assert not stage.assembly.waiting()
