"""The archive: a topic's records in Parquet files by day, each exactly once by its offset.

Lives here: names and order of the files (`layout`), where they lie (`places`), what is in one (`rows`), how they come
to be (`archiver`, `service`), and the ways back (`reading`, `verify`). May import pyarrow, `services.records` and
`services.predictor.ports`; Kafka comes in through `archiver.Topic`. Importing this package imports none of that.
"""
