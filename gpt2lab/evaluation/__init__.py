"""How good a model is, in numbers that others have published theirs of.

A task makes items of its data, each a context and what may follow it; `scoring` reads them by the
model; the task makes a record of each item's scores, and metrics of all records. Between them
stands a journal, so that what was scored need not be scored again. Loads without torch.
"""
