"""Retraining: which readings, how they are split, who trains on them, what is said of the result.

`ranges` and `taken` read a topic; `split` parts it by time; `learning` trains, in this process or with `workers` on
Ray; `report` scores what was held back; `runs` is a run's folder; `search` tries other shapes; `job` does it all,
unasked. Writes nothing to Kafka. Of these only `workers` knows Ray.
"""
