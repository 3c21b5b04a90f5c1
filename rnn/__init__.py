"""Recurrent networks over many streams: numbers only.

Imports torch, numpy, safetensors and the standard library; knows no broker, no cluster and nothing of `services`.
`import rnn` itself imports none of them, so that asking for a name costs nothing.
"""
