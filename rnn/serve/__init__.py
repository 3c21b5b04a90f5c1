"""Engines: many streams' states in one table on the device, stepped wave by wave."""
