"""WordPiece against the tokenizers library's BERT, and pruned vocabularies."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from edgeseq.errors import RequestError
from edgeseq.tokens.wordpiece import SPECIAL, WordPiece

PIECES = [
    "un",
    "##aff",
    "##able",
    "able",
    "##s",
    "the",
    "film",
    "##ing",
    "run",
    "##n",
    "good",
    "bad",
    "cafe",
    "1",
    "##9",
    "19",
    "中",
]
LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
VOCABULARY = [*SPECIAL, *PIECES, *LETTERS[:20], *(f"##{c}" for c in LETTERS[:20]), ".", ",", "'", "!"]  # no u to z
OURS = WordPiece(list(dict.fromkeys(VOCABULARY)))
THEIRS = BertWordPieceTokenizer(vocab=OURS.ids, lowercase=True)

WORDS = st.sampled_from(
    ["unaffable", "running", "films", "café", "CAFÉ", "good", "zzz", "the", "1999", "中国", "can't", "able-s"]
)
TEXTS = st.lists(WORDS | st.text(max_size=6), max_size=8).map(" ".join) | st.text(max_size=40)
TEXTS = TEXTS.filter(lambda text: not any(special in text for special in SPECIAL))


@given(text=TEXTS)
def test_tokens_are_those_of_the_tokenizers_library(text: str) -> None:
    expected = THEIRS.encode(text).ids

    assert OURS.encode([text], max_length=1000) == [expected]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("unaffable", ["un", "##aff", "##able"]),
        ("Running!", ["run", "##n", "##ing", "!"]),
        ("CAFÉ", ["cafe"]),
        ("xylophone", ["[UNK]"]),
        ("中good", ["中", "good"]),
        ("can't", ["c", "##a", "##n", "'", "t"]),
        ("a\t\n b", ["a", "b"]),
        ("", []),
    ],
)
def test_text_is_split_as_bert_splits_it(text: str, pieces: list[str]) -> None:
    (ids,) = OURS.encode([text], max_length=64)

    assert [OURS.vocabulary[i] for i in ids] == ["[CLS]", *pieces, "[SEP]"]


@given(texts=st.lists(TEXTS, min_size=1, max_size=4), max_length=st.integers(2, 12))
def test_long_texts_are_cut_and_keep_both_ends(texts: list[str], max_length: int) -> None:
    whole = OURS.encode(texts, max_length=10_000)

    cut = OURS.encode(texts, max_length=max_length)

    for short, long in zip(cut, whole, strict=True):
        assert short == [long[0], *long[1:-1][: max_length - 2], long[-1]]
        assert len(short) <= max_length


@given(texts=st.lists(TEXTS, max_size=5))
def test_pruned_vocabulary_splits_the_used_sentences_as_the_whole_one_does(texts: list[str]) -> None:
    sentences = OURS.encode(texts, max_length=64)

    pruned = OURS.pruned_to(sentences)

    rows = pruned.rows_in(OURS)
    assert [[rows[i] for i in s] for s in pruned.encode(texts, max_length=64)] == sentences


@given(used=st.lists(TEXTS, max_size=3), new=st.text("".join(LETTERS[:20]) + " .", min_size=1, max_size=30))
def test_pruned_vocabulary_can_still_spell_any_word(used: list[str], new: str) -> None:
    pruned = OURS.pruned_to(OURS.encode(used, max_length=64))

    (ids,) = pruned.encode([new], max_length=999)

    assert pruned.ids["[UNK]"] not in ids
    spelled = "".join(pruned.vocabulary[i].removeprefix("##") for i in ids[1:-1])
    assert spelled == new.replace(" ", "")


def test_pruned_vocabulary_is_smaller_and_keeps_the_special_tokens() -> None:
    pruned = OURS.pruned_to(OURS.encode(["the film"], max_length=64))

    assert pruned.vocabulary[0] == "[PAD]"
    assert set(SPECIAL) <= set(pruned.vocabulary)
    assert {"the", "film"} <= set(pruned.vocabulary)
    assert not {"good", "##able", "un"} & set(pruned.vocabulary)


@given(used=st.lists(TEXTS, max_size=3))
def test_rows_pick_the_same_token_in_the_larger_vocabulary(used: list[str]) -> None:
    pruned = OURS.pruned_to(OURS.encode(used, max_length=64))

    assert [OURS.vocabulary[row] for row in pruned.rows_in(OURS)] == list(pruned.vocabulary)


def test_vocabulary_file_survives_a_round_trip(tmp_path: Path) -> None:
    OURS.save(tmp_path / "vocab.txt")

    assert WordPiece.load(tmp_path / "vocab.txt").vocabulary == OURS.vocabulary


def test_vocabulary_file_with_unusual_line_separators_keeps_its_ids(tmp_path: Path) -> None:
    odd = WordPiece([*SPECIAL, "a", "\u2028", "\x85", "\x1c", "b"])
    odd.save(tmp_path / "vocab.txt")

    assert WordPiece.load(tmp_path / "vocab.txt").ids["b"] == odd.ids["b"]


@pytest.mark.parametrize(
    ("vocabulary", "missing"),
    [(list(SPECIAL[1:]), "[PAD]"), (["a", *SPECIAL], ""), ([SPECIAL[0], "a"], "[UNK]"), ([], "[PAD]")],
)
def test_vocabulary_without_the_special_tokens_is_refused(vocabulary: list[str], missing: str) -> None:
    with pytest.raises(RequestError) as caught:
        WordPiece(vocabulary)

    assert "begins with [PAD] and holds [PAD], [UNK], [CLS], [SEP], [MASK]" in str(caught.value)
    assert missing in str(caught.value)
