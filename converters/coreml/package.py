"""Writing an .mlpackage whose bytes depend on the program alone.

coremltools names the package's items by random UUIDs, dates the model, and adds a map of debug handles. It also writes
the manifest anew whenever it opens a package, in the form that is written here, so that opening one changes nothing.
"""

import json
import shutil
import uuid
from pathlib import Path

from coremltools.models import MLModel

MODEL = "com.apple.CoreML/model.mlmodel"
WEIGHTS = "com.apple.CoreML/weights"
AUTHOR = "com.apple.CoreML"
DATED = "com.github.apple.coremltools.conversion_date"


def write_package(model: MLModel, target: Path) -> None:
    """Write the model to the folder `target`, in place of what was there."""
    spec = model.get_spec()
    spec.description.metadata.userDefined.pop(DATED, None)
    shutil.rmtree(target, ignore_errors=True)
    data = target / "Data"
    shutil.copytree(model.weights_dir, data / WEIGHTS)
    (data / MODEL).write_bytes(spec.SerializeToString(deterministic=True))
    (target / "Manifest.json").write_text(json.dumps(_manifest(), indent=4, sort_keys=True) + "\n")


def _manifest() -> dict[str, object]:
    model, weights = (str(uuid.uuid5(uuid.NAMESPACE_URL, path)).upper() for path in (MODEL, WEIGHTS))
    return {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {
            model: {
                "author": AUTHOR,
                "description": "CoreML Model Specification",
                "name": "model.mlmodel",
                "path": MODEL,
            },
            weights: {"author": AUTHOR, "description": "CoreML Model Weights", "name": "weights", "path": WEIGHTS},
        },
        "rootModelIdentifier": model,
    }
