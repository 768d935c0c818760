"""What flows through an ONNX file: it is run on random inputs, as `edgeseq verify FILE` does."""

from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime as ort
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException

from edgeseq import inspection, onnx_file
from edgeseq.inspection.random_inputs import trials

REFUSALS = (Fail, InvalidArgument, RuntimeException)
MOST_ROWS = 48  # of each run: enough to see which channels are large
FATAL_ONLY = 4  # what onnxruntime logs as an error it raises as well


def observed(source: Path, names: Collection[str]) -> dict[str, list[np.ndarray]]:
    """Rows (R, K) of these float32 values, an array for each of a few runs at several batches and lengths.

    Raises:
        REFUSALS: The model has no use for random inputs.
    """
    contents = inspection.read(source)
    model = onnx_file.load(source)
    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.extend(values[name] for name in names)
    with TemporaryDirectory() as folder:
        watched = Path(folder, "watched.onnx")
        onnx_file.save(model, watched)
        options = ort.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        options.intra_op_num_threads = 1  # so that sums are the same everywhere
        session = ort.InferenceSession(watched, options, providers=["CPUExecutionProvider"])
        found: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for trial in trials(contents.signatures, contents.table_rows, {}):
            for name, rows in zip(names, session.run(list(names), dict(trial.inputs)), strict=True):
                found[name].append(rows.reshape(-1, rows.shape[-1])[:MOST_ROWS])
    return found
