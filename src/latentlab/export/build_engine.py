"""Builds engine.wasm from engine.c, byte for byte the same from the same source and compiler.

``python -m latentlab.export.build_engine`` writes the module into the package; with ``--check`` it writes nothing and
compares. Needs ziglang, of the version that the development group names: clang and a linker as one wheel.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from latentlab.files import atomic_write

SOURCE = Path(__file__).with_name("engine.c")
MODULE = Path(__file__).with_name("engine.wasm")

_FLAGS = (
    "-target", "wasm32-freestanding", "-mcpu=generic+simd128+bulk_memory", "-std=c11", "-O3", "-ffreestanding",
    "-fno-math-errno", "-nostdlib", "-Wall", "-Wextra", "-Werror", "-Wl,--no-entry", "-Wl,--strip-all",
    "-Wl,--export-memory", "-Wl,--export=__heap_base",
)  # fmt: skip


def build() -> bytes:
    """Compiles the engine; returns the module.

    Raises:
        OSError: if the compiler is missing or refuses the source.
    """
    with tempfile.TemporaryDirectory(prefix="latentlab-engine-") as folder:
        caches = {name: folder for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
        command = [sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-o", "engine.wasm", str(SOURCE)]
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **caches}, capture_output=True, text=True, timeout=300
        )
        if done.returncode:
            reason = " ".join(done.stderr.split())[:300]
            raise OSError(f"The engine was not built (pip install ziglang brings the compiler): {reason}")
        return (Path(folder) / "engine.wasm").read_bytes()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 when the module was written, or is what a build gives; 1 when it is another."""
    parser = argparse.ArgumentParser(prog="python -m latentlab.export.build_engine", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the module in the package")
    check = parser.parse_args(arguments).check
    module = build()
    if check:
        same = module == MODULE.read_bytes()
        print(f"{MODULE.name} {'is' if same else 'is not'} what {SOURCE.name} builds to.")
        return 0 if same else 1
    with atomic_write(MODULE, "wb") as file:
        file.write(module)
    print(f"{MODULE}: {len(module):,} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
