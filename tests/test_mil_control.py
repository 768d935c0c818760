"""The Core ML evaluator's branches, loops, lists and states, in saved packages that coremltools' builder made."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if find_spec("coremltools") is None:
    pytest.skip("coremltools is not installed", allow_module_level=True)

import edgeseq.quiet_coremltools  # noqa: F401  # first: it decides how coremltools is imported

# isort: split
import coremltools as ct
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types

from edgeseq.devices.runtimes._mil.evaluate import Evaluated, load_functions
from edgeseq.errors import UnavailableError

pytestmark = pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning")

Program = Callable[..., Any]


def saved(body: Program, specs: list[Any], folder: Path, target: Any = ct.target.iOS18) -> Evaluated:
    program = mb.program(input_specs=specs, opset_version=target)(body)
    model = ct.convert(
        program, minimum_deployment_target=target, compute_precision=ct.precision.FLOAT32, skip_model_load=True
    )
    model.save(str(folder / "model.mlpackage"))
    return load_functions(folder / "model.mlpackage")["main"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control")


def numbers(*sizes: int) -> Any:
    return mb.TensorSpec(shape=sizes)


def test_a_branch_is_taken_and_sees_what_is_around_it(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        doubled = mb.mul(x=x, y=2.0)
        total = mb.reduce_sum(x=doubled, axes=[0], keep_dims=False)
        return mb.cond(
            pred=mb.greater(x=total, y=0.0),
            _true_fn=lambda: mb.add(x=doubled, y=1.0),
            _false_fn=lambda: mb.sub(x=mb.mul(x=x, y=x), y=doubled),
            name="y",
        )

    function = saved(body, [numbers(3)], tmp_path)

    for x in (np.array([1, 2, 3], np.float32), np.array([-1, -2, 1], np.float32)):
        expected = 2 * x + 1 if x.sum() > 0 else x * x - 2 * x
        np.testing.assert_array_equal(function({"x": x})["y"], expected)


@pytest.fixture(scope="module")
def collatz(folder: Path) -> Evaluated:
    """How often a number is halved or tripled until it is 1, with a branch within the loop."""

    def halved_or_tripled(n: Any, count: Any) -> Any:
        is_even = mb.equal(x=mb.mod(x=n, y=2), y=0)
        new = mb.cond(
            pred=is_even,
            _true_fn=lambda: mb.floor_div(x=n, y=2),
            _false_fn=lambda: mb.add(x=mb.mul(x=n, y=3), y=1),
        )
        return new, mb.add(x=count, y=1)

    def body(n: Any) -> Any:
        first = mb.squeeze(x=n)
        _, count = mb.while_loop(
            _cond=lambda n, count: mb.greater(x=n, y=1), _body=halved_or_tripled, loop_vars=(first, np.int32(0))
        )
        return mb.expand_dims(x=count, axes=[0], name="y")

    return saved(body, [mb.TensorSpec(shape=(1,), dtype=types.int32)], folder)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 200))
def test_a_loop_runs_until_its_condition_fails(collatz: Evaluated, n: int) -> None:
    count, current = 0, n
    while current > 1:
        current, count = (current // 2 if current % 2 == 0 else 3 * current + 1), count + 1

    assert collatz({"n": np.array([n], np.int32)})["y"].tolist() == [count]


def test_loops_collect_results_in_lists(tmp_path: Path) -> None:
    """A running product over the rows of x (T, H), as exporters of recurrent cells write it."""

    def body(x: Any) -> Any:
        empty = mb.make_list(init_length=1, dynamic_length=True, elem_shape=(3,), dtype="fp32")

        def step(t: Any, state: Any, rows: Any) -> Any:
            state = mb.mul(x=state, y=mb.gather(x=x, indices=t, axis=0))
            return mb.add(x=t, y=1), state, mb.list_write(ls=rows, index=t, value=state)

        ones = np.ones(3, np.float32)
        _, _, rows = mb.while_loop(
            _cond=lambda t, state, rows: mb.less(x=t, y=4), _body=step, loop_vars=(np.int32(0), ones, empty)
        )
        more = mb.list_scatter(ls=rows, indices=[0, 1], value=np.full((2, 3), 5, np.float32))
        everything = mb.list_gather(ls=more, indices=mb.range_1d(start=0, end=mb.list_length(ls=more), step=1))
        return mb.concat(
            values=[everything, mb.expand_dims(x=mb.list_read(ls=rows, index=1), axes=[0])], axis=0, name="y"
        )

    function = saved(body, [numbers(4, 3)], tmp_path)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    products = x.cumprod(0)
    expected = np.concatenate([np.full((2, 3), 5), products[2:], products[1:2]])
    np.testing.assert_allclose(function({"x": x})["y"], expected, rtol=1e-6)


def test_states_last_from_call_to_call_and_begin_as_zeros(tmp_path: Path) -> None:
    def body(x: Any, total: Any) -> Any:
        before = mb.read_state(input=total)
        after = mb.coreml_update_state(state=total, value=mb.add(x=before, y=mb.cast(x=x, dtype="fp16")))
        return mb.cast(x=mb.mul(x=after, y=np.float16(2)), dtype="fp32", name="y")

    function = saved(body, [numbers(3), mb.StateTensorSpec(shape=(3,), dtype=types.fp16)], tmp_path)
    x, states = np.array([1, 2.5, 1e-3], np.float32), function.new_states()

    half = np.zeros(3, np.float16)
    for _ in range(3):
        half = half + x.astype(np.float16)
        np.testing.assert_array_equal(function({"x": x}, states)["y"], (half * np.float16(2)).astype(np.float32))
        np.testing.assert_array_equal(states["total"], half.astype(np.float32))
    np.testing.assert_array_equal(function({"x": x})["y"], (2 * x.astype(np.float16)).astype(np.float32))


def test_every_operator_that_is_missing_is_named(tmp_path: Path) -> None:
    def body(x: Any) -> Any:
        noise = mb.random_normal(shape=[2, 3])
        picked = mb.random_bernoulli(shape=[2, 3], prob=0.5)
        return mb.cond(
            pred=mb.greater(x=mb.reduce_sum(x=x), y=0.0),
            _true_fn=lambda: mb.add(x=x, y=noise),
            _false_fn=lambda: mb.mul(x=x, y=mb.add(x=picked, y=mb.random_uniform(shape=[2, 3]))),
        )

    with pytest.raises(UnavailableError, match="no operator random_bernoulli, random_normal, random_uniform; check"):
        saved(body, [numbers(2, 3)], tmp_path)
