"""What users may choose of a conversion to Core ML."""

from dataclasses import dataclass

import coremltools as ct

from edgeseq.errors import RequestError

TARGETS = {"ios16": ct.target.iOS16, "ios17": ct.target.iOS17, "ios18": ct.target.iOS18}
OLDEST = "ios16"  # the oldest that holds integer weights per channel
STATEFUL = ("ios18",)  # have states that the engine keeps, and packages of several functions


@dataclass(frozen=True, kw_only=True)
class CoreMLOptions:
    """The oldest system that is to load the package, and what follows from it.

    From `ios18` on, states (caches, an LSTM's h and c) are kept by the engine in float16, for one sequence at a time;
    they are plain inputs and outputs otherwise, at any batch.
    """

    target: str | None = None  # None: the oldest that holds the model, with states as inputs and outputs
    capacity: int | None = None  # rows of each cache that the engine keeps; None: as many as the model can use

    def __post_init__(self) -> None:
        """Refuse what no system has.

        Raises:
            RequestError: An unknown target, or a capacity that nothing would have.
        """
        if self.target is not None and self.target not in TARGETS:
            raise RequestError(f"format 'coreml' has no target '{self.target}'; known: {', '.join(TARGETS)}")
        if self.capacity is not None and (self.capacity < 1 or not self.keeps_states):
            raise RequestError(
                f"format 'coreml' cannot keep {self.capacity} rows of each cache; give 1 or more, with the target "
                f"{' or '.join(STATEFUL)}"
            )

    @property
    def keeps_states(self) -> bool:
        """Whether the engine keeps states."""
        return self.target in STATEFUL
