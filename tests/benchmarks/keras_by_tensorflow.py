"""TensorFlow's own way from Keras to TFLite, in a process of its own: Keras has one backend in a process.

    KERAS_BACKEND=tensorflow python -m tests.benchmarks.keras_by_tensorflow FOLDER STEPS

Writes NAME.tensorflow.tflite beside each NAME.keras, and what each took in seconds.json. The batch is 1 and the length
fixed: with open axes the file of a recurrent layer needs TensorFlow's operators beside TFLite's.
"""

import json
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf


def main() -> None:
    """Convert each file of a folder."""
    folder, steps = Path(sys.argv[1]), int(sys.argv[2])
    seconds = {}
    for path in sorted(folder.glob("*.keras")):
        start = time.process_time()
        path.with_suffix(".tensorflow.tflite").write_bytes(converted(path, steps))
        seconds[path.stem] = time.process_time() - start
    (folder / "seconds.json").write_text(json.dumps(seconds))


def converted(path: Path, steps: int) -> bytes:
    """The file for one sequence of so many steps."""
    model = keras.saving.load_model(path, compile=False)
    x = keras.Input(batch_shape=(1, steps, model.inputs[0].shape[-1]), name="x")
    result: bytes = tf.lite.TFLiteConverter.from_keras_model(keras.Model(x, model(x))).convert()
    return result


if __name__ == "__main__":
    main()
