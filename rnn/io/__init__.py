"""Models on disk and in other formats. Files from outside are checked before use."""
