"""Opens every export of weights with the program that it is for, in an environment without edgepress."""
