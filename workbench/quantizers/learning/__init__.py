"""Learning by gradient descent: a basis with lower quantization error, for one layer or a whole block.

- basis: Λ, D± and R as numbers to train, and as they are stored
- inputs: the layers that share a basis, quantized in it
- descent: AdamW with a cosine, best iterate, early stop, one step at a time
- layer: the loss of one layer under its second moment
- block: the loss of a whole transformer block against its full-precision output
"""
