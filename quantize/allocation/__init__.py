"""Mixed precision: every linear gets the format with which a budget of bytes buys the least drift.

`options` lists the formats, `sensitivity` measures what an error of a linear does to the denoisers' outputs, `knapsack`
distributes the bytes, and `stage` does all of it and confirms the result end to end.
"""
