"""Matmuls with stored matrices: the layers that hold them and the backends that run them."""
