"""The Core ML evaluator's scatters, sorts and windows do what torch, or a loop, does."""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

if find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

from tests.mil_inputs import FEW, SEEDS, floats, run, same, t

MODES = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@pytest.mark.parametrize("mode", [*MODES, "update"])
@FEW
@given(seed=SEEDS, axis=st.integers(0, 2))
def test_scatters(mode: str, seed: int, axis: int) -> None:
    rng, x = np.random.default_rng(seed), floats(seed, (3, 4, 5))
    rows = rng.permutation(x.shape[axis])[:2] if mode == "update" else rng.integers(0, x.shape[axis], 2)
    updates = floats(seed + 1, tuple(2 if i == axis else size for i, size in enumerate(x.shape)))
    index = np.broadcast_to(rows.reshape([-1 if i == axis else 1 for i in range(3)]), updates.shape)

    if mode == "update":
        expected = t(x).scatter(axis, t(index), t(updates))
    else:
        expected = t(x).scatter_reduce(axis, t(index), t(updates), MODES[mode])

    same(run("scatter", data=x, indices=rows, updates=updates, axis=axis, mode=mode), expected)
    same(run("scatter_along_axis", data=x, indices=index, updates=updates, axis=axis, mode=mode), expected)
    ahead, first = np.moveaxis(updates, axis, 0), np.moveaxis(x, axis, 0)
    points = run("scatter_nd", data=first, indices=rows[:, None], updates=ahead, mode=mode)
    same(np.moveaxis(points, 0, axis), expected)


@FEW
@given(seed=SEEDS, axis=st.integers(-3, 2), k=st.integers(1, 3), ascending=st.booleans())
def test_sorting(seed: int, axis: int, k: int, ascending: bool) -> None:
    x = np.random.default_rng(seed).permutation(60).reshape(3, 4, 5).astype(np.float32)

    values, places = run("topk", x=x, k=k, axis=axis, ascending=ascending)

    expected = t(x).topk(k, axis, largest=not ascending)
    same(values, expected.values)
    same(places, expected.indices.int())
    same(run("argsort", x=x, axis=axis, ascending=ascending), t(x).argsort(axis, descending=not ascending).int())


@FEW
@given(seed=SEEDS, axis=st.integers(0, 1), size=st.integers(1, 4), stride=st.integers(1, 3))
def test_windows(seed: int, axis: int, size: int, stride: int) -> None:
    x = floats(seed, (6, 7))

    actual = run("sliding_windows", x=x, axis=axis, size=size, stride=stride)

    same(actual, t(x).unfold(axis, size, stride).movedim(-1, axis + 1))


@FEW
@given(seed=SEEDS, first=st.integers(0, 3), count=st.integers(1, 3), step=st.integers(1, 2))
def test_slices_are_replaced(seed: int, first: int, count: int, step: int) -> None:
    x = floats(seed, (2, 9, 3))
    expected = x.copy()
    expected[:, first : first + count * step : step] = 7
    update = np.full((2, count, 3), 7, np.float32)

    actual = run(
        "slice_update",
        x=x,
        update=update,
        begin=[5, first, 5],
        end=[5, first + count * step, 5],
        stride=[1, step, 1],
        begin_mask=[True, False, True],
        end_mask=[True, False, True],
    )

    same(actual, expected)
    assert not np.array_equal(actual, x)


@FEW
@given(seed=SEEDS)
def test_places_and_shapes_of_others(seed: int) -> None:
    x = np.round(floats(seed, (3, 4)) / 3)

    same(run("non_zero", x=x), t(x).nonzero().int())
    refs = (np.zeros((6, 9)), np.zeros((5, 2)))
    actual = run("reshape_like", x=x, ref_tensors=refs, begins=(0, 1), ends=(1, 0), end_masks=(False, True))
    same(actual, x.reshape(6, 2))
