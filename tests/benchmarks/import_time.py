"""How long `import restore` takes beside `import torch`: a ratio of medians, measured by turns.

python tests/benchmarks/import_time.py
"""

import statistics
import subprocess
import sys
import time


def once(module: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    once("restore")  # Files into the cache.
    pairs = [(once("torch"), once("restore")) for _ in range(7)]
    torch, restore = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"import torch {torch:.2f} s, import restore {restore:.2f} s, ratio {restore / torch:.3f}")
