"""A reference evaluator of Core ML programs (MIL) in numpy: reads a saved .mlpackage and nothing else.

Values of float16 are held as float32 that float16 can express: an operator computes in float32, and its result is
rounded to the type that the program declares. Real hardware may also round inside an operator.
"""

import edgeseq.quiet_coremltools  # noqa: F401  # first: it decides how coremltools is imported
