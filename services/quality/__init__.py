"""What live predictions are worth: figures, the contest between two models, drift. Statistics only.

`prequential` sums errors as they become known (`pending` keeps what was said of later readings); `rounds` and `contest`
decide whether a challenger is better; `reference`, `drift` and `loss_drift` say when data or errors are no longer what
they were. Everything is columnar, can be pickled, copied and added up over shards. Imports numpy; river when asked.
"""
