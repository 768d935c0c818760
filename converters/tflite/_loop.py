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
    test = _like(graph.subgraph(f"{name}_condition"), start)
    test.outputs = [condition(test, test.inputs)]
    rounds = _like(graph.subgraph(f"{name}_body"), start)
    rounds.outputs = body(rounds, rounds.inputs)
    settings = options("WhileOptions", condSubgraphIndex=test.index(), bodySubgraphIndex=rounds.index())
    operator = Operator(code="WHILE", inputs=list(start), outputs=[], options=settings)
    results = [Value(name=f"{graph.scope};while", shape=v.shape, dtype=v.dtype, producer=operator) for v in start]
    operator.outputs = results
    graph.operators.append(operator)
    return results


def _like(graph: Graph, start: Sequence[Value]) -> Graph:
    """The graph with inputs like the values that a loop starts from."""
    graph.inputs = [Value(name="carried", shape=v.shape, dtype=v.dtype) for v in start]
    return graph
