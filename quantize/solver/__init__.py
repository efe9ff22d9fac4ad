"""Applies the algorithms to one linear (`layer`) and to all linears of a block together (`block`)."""
