"""What the tests of the Core ML evaluator's operators share: random inputs, one operator run, torch's answer compared."""

from typing import Any

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from edgeseq.devices.runtimes._mil.evaluate import COMPUTING, MOVING

Array = np.ndarray
FEW = settings(max_examples=12)
SEEDS = st.integers(0, 2**16)


def floats(seed: int, sizes: tuple[int, ...]) -> Array:
    return np.random.default_rng(seed).normal(size=sizes).astype(np.float32) * 2


def t(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))


def same(actual: Any, expected: Any) -> None:
    wanted = expected.numpy() if isinstance(expected, Tensor) else expected
    assert np.shape(actual) == np.shape(wanted)
    np.testing.assert_allclose(np.asarray(actual), wanted, rtol=2e-5, atol=1e-5)


def run(name: str, **inputs: Any) -> Any:
    return {**COMPUTING, **MOVING}[name](**inputs)
