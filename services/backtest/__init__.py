"""How good a model would have been: trained on the past, run online over what came after, one reading at a time.

`scores` says how wrong, beside what anyone could have said (`ridge`, and the last reading); `forecast` runs a model
over a series through the very decode, state, engine and encode that serve. Knows no Kafka and no Ray.
"""
