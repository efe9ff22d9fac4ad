"""What a user would pick instead of edgepress, pressed at nearly the same bits and painted by the same code."""
