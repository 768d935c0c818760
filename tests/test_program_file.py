"""Exported programs of others: read when harmless, refused when anything in them would run."""

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgeseq import program_file
from edgeseq.errors import RequestError
from edgeseq.program_text import check_operator, check_size

MODEL = "models/model.json"
SAMPLES = "data/sample_inputs/model.pt"
WEIGHTS = "data/weights/model_weights_config.json"
Edit = Callable[[dict[str, bytes]], None]


class Bomb:
    """What unpickles into a file beside it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor, scale: Tensor) -> dict[str, Tensor]:
        half = torch.arange(tokens.shape[1] // 2 + 1).sum()  # a size that is computed
        return {"scores": self.head(self.embed(tokens)).mean(1) * scale + half}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("exported") / "model.pt2"
    axes = {0: torch.export.Dim("batch", max=64), 1: torch.export.Dim("time", min=2, max=32)}
    arguments = (torch.ones(2, 6, dtype=torch.int64),)
    shapes = {"tokens": axes, "scale": {}}
    program = torch.export.export(Model().eval(), arguments, {"scale": torch.ones(3)}, dynamic_shapes=shapes)
    torch.export.save(program, path)
    return path


def edited(source: Path, target: Path, edit: Edit, *, compression: int = zipfile.ZIP_STORED) -> Path:
    """A copy of an archive with other files in it."""
    with zipfile.ZipFile(source) as archive:
        root = archive.namelist()[0].split("/")[0]
        files = {name.removeprefix(f"{root}/"): archive.read(name) for name in archive.namelist()}
    edit(files)
    with zipfile.ZipFile(target, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(f"{root}/{name}", content)
    return target


def text_edit(old: str, new: str) -> Edit:
    def edit(files: dict[str, bytes]) -> None:
        text = files[MODEL].decode()
        assert old in text
        files[MODEL] = text.replace(old, new).encode()

    return edit


def test_program_computes_what_the_model_computes(exported: Path) -> None:
    torch.manual_seed(0)
    model = Model().eval()
    tokens, scale = torch.randint(0, 50, (3, 9)), torch.randn(3)

    outputs = program_file.read(exported).module()(tokens, scale)

    assert list(outputs) == ["scores"]
    torch.testing.assert_close(outputs["scores"], model(tokens, scale)["scores"])


def test_example_inputs_are_never_unpickled(exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    bomb = edited(exported, tmp_path / "bomb.pt2", lambda files: files.update({SAMPLES: pickle.dumps(Bomb(mark))}))

    program = program_file.read(bomb)

    assert program.example_inputs is None
    assert not mark.exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data/weights/model.pt", "holds a pickle, 'data/weights/model.pt', which could run code when it is read"),
        ("data/constants/model.pt", "holds a pickle"),
        ("data/constants/custom_obj_0", "holds a pickle"),
        ("data/constants/opaque_obj_0", "holds a pickle"),
        ("serialized_state_dict.pt", "holds a pickle"),
        ("data/aotinductor/model/x.so", "holds compiled code"),
    ],
)
def test_file_with_pickles_or_libraries_is_refused(exported: Path, tmp_path: Path, name: str, message: str) -> None:
    bomb = edited(
        exported, tmp_path / "bomb.pt2", lambda files: files.update({name: pickle.dumps(Bomb(tmp_path / "x"))})
    )

    with pytest.raises(RequestError, match=message):
        program_file.read(bomb)
    assert not (tmp_path / "x").exists()


def test_weight_that_is_a_pickle_is_refused(exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was_run"

    def edit(files: dict[str, bytes]) -> None:
        config = json.loads(files[WEIGHTS])
        config["config"]["head.bias"]["use_pickle"] = True
        files[WEIGHTS] = json.dumps(config).encode()
        files["data/weights/weight_2"] = pickle.dumps(Bomb(mark))

    with pytest.raises(RequestError, match=r"stores 'head\.bias' as a pickle"):
        program_file.read(edited(exported, tmp_path / "bomb.pt2", edit))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"expr_str": "FloorDiv(', '"expr_str": "__import__(\'os\').getcwd() or (', "is no arithmetic"),
        ("torch.ops.aten.linear.default", "torch.hub.load", "is no operator of torch"),
        ("torch.ops.aten.linear.default", "torch.ops.aten.from_file.default", "is no operator on tensors"),
        ("torch.ops.aten.linear.default", "torch.ops.aten.nothing.default", "does not have"),
        ("torch.ops.aten.linear.default", "torch.ops.mine.linear.default", "an operator of another package"),
        ("_operator.floordiv", "_operator.methodcaller", "is no operator of torch"),
    ],
)
def test_program_that_would_run_text_is_refused(
    exported: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        program_file.read(edited(exported, tmp_path / "bomb.pt2", text_edit(old, new)))


def test_guards_are_never_evaluated(exported: Path, tmp_path: Path) -> None:
    mark = tmp_path / "was_run"

    def edit(files: dict[str, bytes]) -> None:
        program = json.loads(files[MODEL])
        program["guards_code"] = [f"__import__('pathlib').Path({str(mark)!r}).touch() is None"]
        files[MODEL] = json.dumps(program).encode()

    module = program_file.read(edited(exported, tmp_path / "bomb.pt2", edit)).module()
    module(torch.ones(2, 4, dtype=torch.int64), torch.ones(3))

    assert not mark.exists()


@pytest.mark.parametrize("kept", [0, 100, 4000, -30])
def test_damaged_file_is_refused(exported: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "damaged.pt2"
    path.write_bytes(exported.read_bytes()[:kept])

    with pytest.raises(RequestError, match=r"damaged\.pt2' is no file of torch\.export\.save"):
        program_file.read(path)


def test_compressed_or_empty_archive_is_refused(exported: Path, tmp_path: Path) -> None:
    compressed = edited(exported, tmp_path / "c.pt2", lambda files: None, compression=zipfile.ZIP_DEFLATED)
    empty = edited(exported, tmp_path / "empty.pt2", lambda files: files.update({MODEL: b""}))

    with pytest.raises(RequestError, match="is there twice or compressed"):
        program_file.read(compressed)
    with pytest.raises(RequestError, match=r"empty\.pt2' cannot be read: JSONDecodeError"):
        program_file.read(empty)


@pytest.mark.parametrize(
    "text",
    [
        "Symbol('s27', positive=True, integer=True)",
        "Add(FloorDiv(Symbol('s27', positive=True, integer=True), Integer(2)), Integer(1))",
        "2*s0 + 1",
        "Max(1, s77 - 3)",
        "Eq(Mod(s0, 4), 0)",
    ],
)
def test_arithmetic_on_sizes_is_accepted(text: str) -> None:
    check_size(text, "file")


@pytest.mark.parametrize(
    "text",
    [
        "open('x')", "s0.__class__", "(lambda: 1)()", "[].append", "Symbol('x; y')", "getattr(s0, 's1')", "s0[0]",
        "Symbol(__import__('os').name)", "f'{s0}'", "exec('s0')", "(s0 := 1)", "'s0'.format",
    ],
)  # fmt: skip
def test_anything_else_as_a_size_is_refused(text: str) -> None:
    with pytest.raises(RequestError):
        check_size(text, "file")


@pytest.mark.parametrize(
    "target",
    ["torch.ops.load_library", "torch.load", "_operator.attrgetter", "math.__loader__.x", "os.system", "#custom:run"],
)
def test_functions_that_are_no_operators_are_refused(target: str) -> None:
    with pytest.raises(RequestError, match="is no operator"):
        check_operator(target, "file")
