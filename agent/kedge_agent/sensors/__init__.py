"""What a board's sensors say: parsers over a root folder, so that any tree can be read.

A file that is not there, cannot be read or holds nonsense is: not measured. Nothing here raises.
"""
