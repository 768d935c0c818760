"""Equalization: channels that are far larger than others are made smaller where integers round them, exactly.

Int8 rounds an activation's row in steps of its range, so that one large channel coarsens all others; norms of Transformers
have such channels (Dettmers et al. 2022). For any s, (x·s)(W/s)ᵀ = xWᵀ (SmoothQuant, Xiao et al. 2023, eq. 3). Here s are
powers of two, so that float32 results stay equal to the bit, and captured programs of every format can have them.

A norm that only linear layers read takes s into its own weights. Where a residual reads it too, as after the norms of BERT,
one product more is computed. How large channels are is seen on the example inputs; random tokens are enough.

Letters: R rows seen, I inputs of a linear layer, O its outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, InputSpec, TensorArgument
from torch.fx import Interpreter, Node

from edgeseq.channel_scales import best_scale

ATEN = torch.ops.aten
LEAST_GAIN = 1.05  # a smaller fall of the expected noise is not worth a change
LEAST_GAIN_OF_PRODUCT = 1.25  # nor this one a product more
MOST_ROWS = 512  # of an activation that are looked at
IDENTITIES = frozenset({ATEN.dropout.default, ATEN.clone.default, ATEN.contiguous.default, ATEN.alias.default})
MOVES = frozenset({
    ATEN.view.default, ATEN.reshape.default, ATEN.transpose.int, ATEN.permute.default, ATEN.unsqueeze.default,
    ATEN.squeeze.dim, ATEN.select.int, ATEN.unflatten.int, ATEN.expand.default,
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Group:
    """The linear layers that read one norm, and no other."""

    norm: Node
    source: Node  # what they read: the norm, or its dropout, which does nothing
    linears: tuple[Node, ...]
    weights: Mapping[Node, Tensor]  # (O, I) of each
    deciding: tuple[Node, ...]  # those whose noise counts

    @property
    def is_private(self) -> bool:
        """Whether nothing else reads the norm."""
        between = [self.norm] if self.source is self.norm else [self.norm, self.source]
        readers = [user for node in between for user in node.users if user is not self.source]
        return set(readers) == set(self.linears)


def equalize(program: ExportedProgram, inputs: Sequence[Tensor]) -> None:
    """Scale channels between norms and linear layers of a captured program, in place; its weights are replaced, not changed.

    Args:
        program: What torch.export made of a model.
        inputs: Example inputs. The more they are like real ones, the better are the scales.
    """
    groups = _groups(program)
    if not groups:
        return
    seen = _Seen(program.graph_module, frozenset(group.source for group in groups))
    seen.run(*_lifted(program), *inputs)
    for group in groups:
        if group.source not in seen.rows:
            continue
        gain, scale = best_scale(seen.rows[group.source], [group.weights[node] for node in group.deciding])
        is_folded = group.is_private and _folds(program, group.norm)
        if not gain >= (LEAST_GAIN if is_folded else LEAST_GAIN_OF_PRODUCT):
            continue
        for node in group.linears:
            _replace(program, node.args[1], lambda weight, s=scale: weight / s)
        if is_folded:
            for parameter in group.norm.args[2:4]:
                _replace(program, parameter, lambda values, s=scale: values * s)
        else:
            _multiply(program, group, scale)
    program.graph_module.recompile()


class _Seen(Interpreter):
    """Runs a program and keeps the rows (R, I) that some of its nodes give."""

    def __init__(self, module: torch.fx.GraphModule, wanted: frozenset[Node]):
        super().__init__(module)
        self.wanted = wanted
        self.rows: dict[Node, Tensor] = {}

    @torch.no_grad()
    def run_node(self, n: Node) -> Any:
        result = super().run_node(n)
        if n in self.wanted:
            rows = result.reshape(-1, result.shape[-1])
            self.rows[n] = rows[:: -(-len(rows) // MOST_ROWS)] if len(rows) else rows
        return result


def _groups(program: ExportedProgram) -> list[_Group]:
    """Every norm over the last axis that linear layers read whose weights nothing else reads."""
    own = _own_parameters(program)
    readers: dict[Node, list[Node]] = {}
    for node in program.graph.nodes:
        if node.target == ATEN.linear.default and node.args[1] in own:
            readers.setdefault(node.args[0], []).append(node)
    compared = _compared(program)
    groups = []
    for source, linears in readers.items():
        norm = source.args[0] if source.target in IDENTITIES else source
        if not isinstance(norm, Node) or norm.target != ATEN.layer_norm.default or len(norm.args[1]) != 1:  # type: ignore[arg-type]  # a shape
            continue
        groups.append(
            _Group(
                norm=norm,
                source=source,
                linears=tuple(linears),
                weights={node: own[node.args[1]].detach() for node in linears},  # type: ignore[index]  # a placeholder
                deciding=tuple(node for node in linears if node not in compared) or tuple(linears),
            )
        )
    return groups


def _compared(program: ExportedProgram) -> set[Node]:
    """The linear layers that give queries and keys.

    Noise in them hardly matters: on MiniLM-L6, int8 in all of them costs 1e-5 of 1 − cosine, in the values alone 1e-3.
    """
    found = set()
    for node in program.graph.nodes:
        if node.target == ATEN.scaled_dot_product_attention.default:
            for source in node.args[:2]:
                while isinstance(source, Node) and source.target in IDENTITIES | MOVES:
                    source = source.args[0]
                found.add(source)
    return found


def _own_parameters(program: ExportedProgram) -> dict[Node, Tensor]:
    """Placeholders of float32 parameters that one node reads, and that are no other's values."""
    state, paths = program.state_dict, program.graph_signature.inputs_to_parameters
    addresses = [value.data_ptr() for value in state.values()]
    own = {}
    for node in program.graph.find_nodes(op="placeholder"):
        value = state.get(paths.get(node.name, ""))
        is_float = value is not None and value.dtype == torch.float32
        if is_float and len(node.users) == 1 and addresses.count(value.data_ptr()) == 1:
            own[node] = value
    return own


def _lifted(program: ExportedProgram) -> list[Any]:
    """What the program takes besides its inputs, in order."""
    stored = {**program.state_dict, **program.constants}
    specs = program.graph_signature.input_specs
    return [stored[spec.target] for spec in specs if spec.kind != InputKind.USER_INPUT and spec.target is not None]


def _folds(program: ExportedProgram, norm: Node) -> bool:
    """Whether a norm has weights of its own, and offsets of its own or none."""
    own, parameters = _own_parameters(program), [*norm.args[2:4], None, None][:2]
    return parameters[0] in own and (parameters[1] is None or parameters[1] in own)


def _replace(program: ExportedProgram, placeholder: Any, change: Any) -> None:
    if placeholder is not None:
        path = program.graph_signature.inputs_to_parameters[placeholder.name]
        program.state_dict[path] = nn.Parameter(change(program.state_dict[path].detach()), requires_grad=False)


def _multiply(program: ExportedProgram, group: _Group, scale: Tensor) -> None:
    """Let the linear layers read the source times a new buffer."""
    graph, signature = program.graph, program.graph_signature
    path = _free_path(program, f"{signature.inputs_to_parameters[group.linears[0].args[1].name]}_scale")  # type: ignore[union-attr]  # a placeholder
    program.state_dict[path] = scale
    kinds = [spec.kind for spec in signature.input_specs]
    position = next(i for i, kind in enumerate(kinds) if kind not in (InputKind.PARAMETER, InputKind.BUFFER))
    with graph.inserting_before(graph.find_nodes(op="placeholder")[position]):
        stored = graph.placeholder(_placeholder(path))
    stored.meta["val"] = group.source.meta["val"].fake_mode.from_tensor(scale, static_shapes=True)
    argument = TensorArgument(name=stored.name)
    spec = InputSpec(kind=InputKind.BUFFER, arg=argument, target=path, persistent=True)
    signature.input_specs.insert(position, spec)
    with graph.inserting_before(group.linears[0]):
        product = graph.call_function(ATEN.mul.Tensor, (group.source, stored))
    product.meta = dict(group.source.meta)  # of the same shape, in the same module
    for node in group.linears:
        node.replace_input_with(group.source, product)


def _free_path(program: ExportedProgram, wanted: str) -> str:
    """The path of a new buffer, counted up where the model has one there, or one of the same placeholder."""
    signature = program.graph_signature
    names = {node.name for node in program.graph.nodes}
    taken = {*program.state_dict, *program.constants, *(spec.target for spec in signature.input_specs)}
    paths = chain([wanted], (f"{wanted}_{i}" for i in count(1)))
    return next(path for path in paths if path not in taken and _placeholder(path) not in names)


def _placeholder(path: str) -> str:
    return f"b_{path.replace('.', '_')}"
