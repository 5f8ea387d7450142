"""Whether two runs over a model stored the same, bit for bit."""

import torch

from workbench.quantized import QuantizedModel


def assert_same_layers(one: QuantizedModel, other: QuantizedModel) -> None:
    """Fail unless both have the same layers with the same stored tensors, ledgers and errors."""
    assert list(one.layers) == list(other.layers)
    for name, layer in one.layers.items():
        again = other.layers[name]
        assert (layer.ledger, layer.tokens) == (again.ledger, again.tokens), name
        assert (layer.relative_error, layer.output_error) == (again.relative_error, again.output_error), name
        for (path, node), (other_path, other_node) in zip(layer.packed.walk(), again.packed.walk(), strict=True):
            facts = (path, node.format, node.facts, node.shared)
            assert facts == (other_path, other_node.format, other_node.facts, other_node.shared), name
            assert node.tensors.keys() == other_node.tensors.keys(), (name, path)
            assert all(torch.equal(tensor, other_node.tensors[key]) for key, tensor in node.tensors.items()), (name, path)
