"""What at least two of builder, server and agent speak: manifests, policies, protocol, trust."""

__version__ = "0.1.0"
