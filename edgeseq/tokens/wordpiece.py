"""WordPiece (Devlin et al. 2019): greedy longest match, from a vocabulary file with one token a line."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordPiece as WordPieceModel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from edgeseq.errors import RequestError

PAD, UNKNOWN, START, END, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


class WordPiece:
    """Text -> [CLS] pieces [SEP], uncased. Token 0 is [PAD]."""

    def __init__(self, vocabulary: Sequence[str]):
        """`vocabulary`: tokens in the order of their ids; [PAD] is the first and the other special tokens are among them."""
        missing = [token for token in SPECIAL if token not in vocabulary]
        if missing or vocabulary[0] != PAD:
            raise RequestError(
                f"a WordPiece vocabulary begins with {PAD} and holds {', '.join(SPECIAL)}; missing: {missing}"
            )
        self.vocabulary = tuple(vocabulary)
        self.ids = {token: i for i, token in enumerate(vocabulary)}
        self._tokenizer = Tokenizer(WordPieceModel(self.ids, unk_token=UNKNOWN, max_input_chars_per_word=100))
        self._tokenizer.normalizer = BertNormalizer(lowercase=True)
        self._tokenizer.pre_tokenizer = BertPreTokenizer()

    @classmethod
    def load(cls, path: Path) -> "WordPiece":
        """Read a vocabulary file."""
        return cls(path.read_text(encoding="utf-8").removesuffix("\n").split("\n"))  # tokens may be other line breaks

    def save(self, path: Path) -> None:
        """Write the vocabulary file that an app ships."""
        path.write_text("".join(f"{token}\n" for token in self.vocabulary), encoding="utf-8")

    def encode(self, texts: Iterable[str], *, max_length: int) -> list[list[int]]:
        """Token ids of each text, cut to `max_length` with [CLS] and [SEP] included."""
        start, end = self.ids[START], self.ids[END]
        encodings = self._tokenizer.encode_batch(list(texts))
        return [[start, *encoding.ids[: max_length - 2], end] for encoding in encodings]

    def pruned_to(self, sentences: Iterable[Sequence[int]]) -> "WordPiece":
        """The smallest vocabulary that splits these sentences as this one does, and can still spell any Latin word.

        Longest match finds the same pieces in any vocabulary that holds them and is a subset. Single ASCII characters
        stay, so that a word from elsewhere is spelled in smaller pieces before it becomes [UNK].
        """
        used = {self.vocabulary[i] for sentence in sentences for i in sentence} | set(SPECIAL)
        return WordPiece([t for t in self.vocabulary if t in used or _is_ascii_character(t.removeprefix("##"))])

    def rows_in(self, larger: "WordPiece") -> list[int]:
        """For each token of this vocabulary, its id in a larger one: picks rows of an embedding table."""
        return [larger.ids[token] for token in self.vocabulary]


def _is_ascii_character(piece: str) -> bool:
    return len(piece) == 1 and piece.isascii()
