"""Where chance comes from in training: a stream for each purpose and step, all from the experiment's seed."""

from __future__ import annotations

import hashlib


def stream_seed(seed: int, stream: str, step: int) -> int:
    """A 63-bit seed for one purpose at one step, unrelated between purposes and steps."""
    digest = hashlib.blake2b(f"{seed}/{stream}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
