"""Movie review snippets with the mean of twenty people's ratings, from -4 to 4 (Hutto and Gilbert 2014).

Two classes: rated at least half a point from neutral. Amazon reviews and tweets, rated the same way, are test sets from
other domains. The split is by a hash of the text, so that it never changes and repeated texts stay on one side.
"""

import hashlib
import io
import tarfile

from edgeseq.data import Data, Example, Splits
from edgeseq.data.packages import Package, fetch, read_member

PACKAGE = Package(
    name="vaderSentiment",
    version="3.3.2",
    sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
)
RATINGS = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
LEAST_RATING = 0.5
SHIFTED = {"amazon": "amazonReviewSnippets", "tweets": "tweets"}
SHIFTED_EXAMPLES = 500  # of some 3,000 each: an accuracy within 2 points, at a sixth of the teacher's time


class MovieSnippets(Data):
    source = "Rated movie, Amazon and tweet snippets of Hutto and Gilbert 2014, from vaderSentiment 3.3.2 (MIT)"

    def load(self) -> Splits:
        """10,072 movie snippets as 85 % train, 5 % validation and 10 % test."""
        with tarfile.open(fileobj=io.BytesIO(read_member(fetch(PACKAGE), RATINGS))) as ratings:
            movies = sorted(_read(ratings, "movieReviewSnippets"), key=_hash)  # the file has them by their rating
            shifted = {name: _sample(_read(ratings, file)) for name, file in SHIFTED.items()}
        percent = [_hash(e) % 100 for e in movies]

        def part(low: int, high: int) -> tuple[Example, ...]:
            return tuple(e for e, p in zip(movies, percent, strict=True) if low <= p < high)

        return Splits(
            classes=("negative", "positive"),
            test=part(0, 10),
            validation=part(10, 15),
            train=part(15, 100),
            shifted=shifted,
        )


def _read(ratings: tarfile.TarFile, name: str) -> tuple[Example, ...]:
    """Lines of `id, rating, text`, separated by tabs."""
    stream = ratings.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
    assert stream is not None, f"the archive's hash was checked, so '{name}' is in it"
    examples = []
    for line in stream.read().decode("latin-1").splitlines():
        _, rating, text = line.split("\t", 2)
        if abs(float(rating)) >= LEAST_RATING:
            examples.append(Example(text, int(float(rating) > 0)))
    return tuple(examples)


def _sample(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    return tuple(sorted(examples, key=_hash)[:SHIFTED_EXAMPLES])


def _hash(example: Example) -> int:
    return int(hashlib.sha256(example.text.encode()).hexdigest()[:8], 16)


DATA = MovieSnippets()
