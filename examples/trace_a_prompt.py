"""Trace a prompt through the bundled model and follow its graph.

Run: python examples/trace_a_prompt.py
"""

import jaxinterp as ji
from jaxinterp.biology.pocket import demo_prompt
from jaxinterp.graphs import report

model = ji.load_model("pocket")
clt = ji.load_dictionary("pocket")

graph = ji.trace(model, clt, demo_prompt())
print(graph)
print(graph.checks())  # how exactly the identities hold on this very graph
print(graph.scores())

small = graph.prune(node_threshold=0.8, edge_threshold=0.98)
print(report(small))

# Edges are arrays: the strongest inputs of the most probable next token.
target, source, weight = graph.edges()
inputs = target == graph.targets[0]
strongest = sorted(zip(weight[inputs], source[inputs], strict=True), key=lambda edge: -abs(edge[0]))[:5]
for w, node in strongest:
    print(f"{w:+.3f}  {graph.nodes[node]}")
