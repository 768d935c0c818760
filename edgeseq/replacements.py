"""What to write instead of operators that formats lack, where something is known to compute the same."""

from collections.abc import Mapping

# The operator's name without its overload -> what to use.
REPLACEMENTS: Mapping[str, str] = {
    "cond": "torch.where(condition, a, b), which computes both",
    "while_loop": "a loop in the app around one step, or a fixed number of steps",
    "scan": "nn.LSTM, nn.GRU or nn.RNN, or a loop in the app around one step",
    "map_impl": "one operation on the whole tensor",
    "aten.nonzero": "torch.where(condition, x, 0) keeps the shape",
    "aten.masked_select": "torch.where(mask, x, 0) keeps the shape",
    "aten.unique": "count in the app",
    "aten._unique2": "count in the app",
    "aten.sort": "topk, if the largest are enough",
    "aten.argsort": "topk, if the largest are enough",
    "aten.median": "topk of half the length",
    "aten.multinomial": "give the logits, and sample in the app",
    "aten.bernoulli": "model.eval(), or give the noise as an input",
    "aten.rand": "give the noise as an input",
    "aten.randn": "give the noise as an input",
    "aten.rand_like": "give the noise as an input",
    "aten.randn_like": "give the noise as an input",
    "aten.randint": "give the number as an input",
    "aten._fft_r2c": "a product with a constant Fourier matrix, or features that the app computes",
    "aten._fft_c2c": "a product with a constant Fourier matrix, or features that the app computes",
    "aten._fft_c2r": "a product with a constant Fourier matrix",
    "aten.stft": "features that the app computes",
    "aten.view_as_complex": "two real tensors, as rotary embeddings can be written",
    "aten.view_as_real": "two real tensors",
    "aten.complex": "two real tensors",
    "aten.polar": "cos and sin as two real tensors",
    "aten._cdist_forward": "|a|² + |b|² − 2 a·b",
    "aten.cdist": "|a|² + |b|² − 2 a·b",
    "aten.bincount": "one_hot(...).sum(0)",
    "aten.histc": "comparisons with the bins' edges, summed",
    "aten.searchsorted": "(edges < x).sum(-1)",
    "aten.bucketize": "(edges < x).sum(-1)",
    "aten.linalg_inv_ex": "an inverse that is computed before the export",
    "aten._linalg_det": "a value that is computed before the export",
    "aten._linalg_svd": "factors that are computed before the export",
    "aten._linalg_eigh": "factors that are computed before the export",
    "aten.linalg_cholesky_ex": "a factor that is computed before the export",
    "aten.erfinv": "a polynomial of its own (Giles 2010)",
    "aten.lgamma": "Stirling's series",
    "aten.i0": "a polynomial (Abramowitz and Stegun 9.8.1)",
    "aten.special_bessel_j0": "a polynomial (Abramowitz and Stegun 9.4.1)",
    "aten.special_bessel_j1": "a polynomial (Abramowitz and Stegun 9.4.4)",
    "aten.bitwise_xor": "!= of booleans",
    "aten.remainder": "x - floor(x / y) * y",
    "aten.fmod": "x - trunc(x / y) * y",
    "aten._embedding_bag": "an embedding and a mean over its rows",
}


def replacement(operator: str) -> str:
    """What to use for an operator such as `aten.sort.default`; empty: nothing is known."""
    return REPLACEMENTS.get(".".join(operator.split(".")[:2]), "")
