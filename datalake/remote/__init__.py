"""Files that lie elsewhere: HTTP and S3 (and what else fsspec knows), read with patience and kept by content.

address   what an address is, and how it is shown without credentials
config    the settings: where and how fast, never what comes out
limits    connections and requests, bounded over all processes of a machine
client    asking and reading: retries, ranges, resumption, checks
cache     local copies, kept by content
session   the three together, as a run sets them
"""
