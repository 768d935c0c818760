"""An inspection as lines for a terminal."""

from collections.abc import Iterator, Mapping

from edgeseq.inspection import Inspection
from edgeseq.inspection.delegates import Share
from edgeseq.report.quantities import size
from edgeseq.signature import Signature, State, TensorSpec

LAYERS = 12  # shown by name; the rest is summed up


def render(inspection: Inspection) -> str:
    """Everything a reader wants to know first, the details of `--json` left out."""
    return "\n".join(
        [
            *_head(inspection),
            *(line for signature in inspection.contents.signatures for line in _signature(signature, inspection)),
            *_operators(inspection),
            *_layers(inspection),
            *(line for share in inspection.shares for line in _share(share)),
            *(f"note: {note}" for note in inspection.contents.notes),
        ]
    )


def _head(inspection: Inspection) -> Iterator[str]:
    scheme = f", scheme {inspection.scheme}" if inspection.scheme else ""
    yield f"{inspection.path}: {inspection.format}{scheme}, {size(inspection.size_bytes)}"
    for need in inspection.contents.requires:
        yield f"  needs {need}"


def _signature(signature: Signature, inspection: Inspection) -> Iterator[str]:
    yield f"signature {signature.name}"
    rows = inspection.contents.table_rows
    for spec in signature.inputs:
        state = next((_kept(s) for s in signature.states if s.input == spec.name), "")
        table = f", chooses among {rows[spec.name]:,} rows" if spec.name in rows else ""
        yield f"  in   {_tensor(spec)}{state}{table}"
    for spec in signature.outputs:
        yield f"  out  {_tensor(spec)}"
    bounds = [f"{dim.name} {dim.min} to {dim.max}" for dim in signature.dims]
    if bounds:
        yield f"  dims {', '.join(bounds)}"


def _kept(state: State) -> str:
    return f", a state that the engine keeps in {state.kept_as}" if state.kept_as else ", a state"


def _tensor(spec: TensorSpec) -> str:
    return f"{spec.name}: {spec.dtype}[{', '.join(str(size) for size in spec.shape)}]"


def _operators(inspection: Inspection) -> Iterator[str]:
    counts = inspection.operator_counts
    yield f"operators: {sum(counts.values())} of {len(counts)} kinds"
    yield f"  {_counted(counts)}"


def _layers(inspection: Inspection) -> Iterator[str]:
    layers = list(inspection.layer_bytes.items())
    total = sum(count for _, count in layers)
    share = 100 / max(total, 1)  # percent a byte; constants may all be empty
    types = ", ".join(f"{dtype} {size(count)}" for dtype, count in inspection.dtype_bytes.items())
    yield f"constants: {size(total)} ({types or 'none'})"
    for name, count in layers[:LAYERS]:
        yield f"  {size(count):>8} {share * count:5.1f} %  {name}"
    rest = sum(count for _, count in layers[LAYERS:])
    if rest:
        yield f"  {size(rest):>8} {share * rest:5.1f} %  {len(layers) - LAYERS} others"


def _share(share: Share) -> Iterator[str]:
    sums = {word: sum(counts.values()) for word, counts in _verdicts(share).items()}
    total = sum(sums.values())
    yield f"{share.title}: by its documents it takes {sums['takes']} of {total} operators, leaves {sums['leaves']}" + (
        f", {sums['unknown']} unknown" if sums["unknown"] else ""
    )
    if share.leaves:
        yield f"  leaves {_counted(share.leaves)}"
    for kind, condition in share.conditions.items():
        yield f"  would leave {kind} too if {condition}"
    yield f"  source: {share.source}"
    yield f"  open: {share.caveat}"


def _verdicts(share: Share) -> Mapping[str, Mapping[str, int]]:
    return {"takes": share.takes, "leaves": share.leaves, "unknown": share.unknown}


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {count}" if count > 1 else kind for kind, count in counts.items())
