"""streamrnn's service rooms. Importing this package costs nothing; see docs/DESIGN.md for the map."""
