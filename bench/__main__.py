"""``python -m bench [NAME ...]``: run the measurements named, or all of them."""

from __future__ import annotations

import importlib
import os
import platform
import sys

BENCHES = {
    "ui": "the app as a person meets it: start, keys, streams and what they cost",
    "decode": "decoding speed beside transformers",
    "memory": "peak memory of loading and importing a checkpoint",
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        print(f"bench: there is no {unknown[0]!r}; there are: {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    load = f"{os.getloadavg()[0]:.1f}"
    print(f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores, load {load}\n")
    for name in names or BENCHES:
        print(f"## {name}: {BENCHES[name]}\n")
        importlib.import_module(f"bench.{name}").run()
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
