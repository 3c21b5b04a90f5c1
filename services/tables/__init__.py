"""Tables of readings and truths, CSV or Parquet, as what a network learns from. Imports pandas when one is read."""
