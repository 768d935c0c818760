"""The words of quantization: a scheme's name parses into what is stored and computed in which type.

The grammar is AI Edge Quantizer's: MODE_wiBITS[bBLOCK]_a(fp32|iBITS), and the plain `fp32` and `fp16`.
"""

import re
from dataclasses import dataclass
from typing import Literal, Self

from edgeseq.errors import RequestError

Mode = Literal["float", "weight_only", "dynamic", "static"]

_GRAMMAR = re.compile(r"(weight_only|dynamic|static)_wi(4|8)(?:b(\d+))?_a(?:(fp32)|i(8|16))")


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """What a scheme says; adaptors act on these fields, never on the name.

    `weight_only` stores integers and computes in float; `dynamic` also rounds activations to integers as they come;
    `static` rounds them with ranges found by calibration.
    """

    name: str
    mode: Mode
    weight_bits: int
    block: int | None = None  # weights that share a scale along the input axis; None: a whole output channel does
    activation_bits: int | None = None  # None: activations are stored in float32 (float16 under `fp16`)

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a scheme's name.

        Raises:
            RequestError: The name is not of the grammar, or its mode and activations contradict each other.
        """
        if name in ("fp32", "fp16"):
            return cls(name=name, mode="float", weight_bits=int(name[2:]))
        match = _GRAMMAR.fullmatch(name)
        if match is None or (match[1] == "static") == (match[4] is not None):
            raise RequestError(
                f"'{name}' is no quantization scheme; examples: fp32, fp16, dynamic_wi8_afp32, weight_only_wi8_afp32, "
                "weight_only_wi4b32_afp32, static_wi8_ai8"
            )
        mode: Mode = {"weight_only": "weight_only", "dynamic": "dynamic", "static": "static"}[match[1]]  # type: ignore[assignment]  # the pattern admits these three
        return cls(
            name=name,
            mode=mode,
            weight_bits=int(match[2]),
            block=int(match[3]) if match[3] else None,
            activation_bits=int(match[5]) if match[5] else None,
        )
