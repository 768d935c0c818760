"""WHILE: a loop whose condition and body are subgraphs of their own."""

from collections.abc import Callable, Sequence

from edgeseq.converters.tflite._graph import Graph, Operator, Value, options


def while_loop(
    graph: Graph,
    name: str,
    condition: Callable[[Graph, list[Value]], Value],
    body: Callable[[Graph, list[Value]], list[Value]],
    start: Sequence[Value],
) -> list[Value]:
    """The carried values after the last round.

    `condition` and `body` build into an empty graph from the carried values; what the body hands back as it came is not
    copied between rounds.
    """
    test, rounds = graph.subgraph(f"{name}_condition"), graph.subgraph(f"{name}_body")
    for inner, build in ((test, lambda: [condition(test, test.inputs)]), (rounds, lambda: body(rounds, rounds.inputs))):
        inner.inputs = [Value(name=f"{inner.name}_{i}", shape=v.shape, dtype=v.dtype) for i, v in enumerate(start)]
        inner.outputs = build()
    settings = options("WhileOptions", condSubgraphIndex=test.index(), bodySubgraphIndex=rounds.index())
    operator = Operator(code="WHILE", inputs=list(start), outputs=[], options=settings)
    results = [Value(name=f"{graph.scope};while", shape=v.shape, dtype=v.dtype, producer=operator) for v in start]
    operator.outputs = results
    graph.operators.append(operator)
    return results
