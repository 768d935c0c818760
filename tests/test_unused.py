"""What a captured program computes for nothing is left out, and nothing else."""

import pytest
import torch
from torch import Tensor, nn

from edgeseq.capture import capture

pytestmark = pytest.mark.filterwarnings("ignore")  # torch.export warns of its own parts


class Wasteful(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        unread = torch.exp(x)
        unread += 1  # a write that nobody sees
        written = torch.zeros_like(x)
        row = written[0]
        row += x[0]  # a write that the result has
        return written * 2


def test_only_what_nobody_reads_is_left_out() -> None:
    program = capture(nn.Sequential(Wasteful()), {"x": torch.randn(2, 3)}).programs["forward"]
    x = torch.randn(2, 3)

    (result,) = program.module()(x)

    assert not [node for node in program.graph.nodes if "exp" in str(node.target) and "expand" not in str(node.target)]
    torch.testing.assert_close(result, torch.stack([2 * x[0], torch.zeros(3)]))
