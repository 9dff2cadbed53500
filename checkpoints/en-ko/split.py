"""Make the en-ko corpus: training, validation and test pairs that share no sentence.

    python checkpoints/en-ko/split.py LIBREOFFICE_EN_KO.tsv.gz TATOEBA_KOR.txt DESTINATION

LibreOffice's help comes in the order of its pages, so it is held out in stretches of neighbouring
lines: a page's sentences are alike, and single ones held out would flatter the scores. Tatoeba's
sentences are on their own and are held out one by one, all translations of one sentence together.
A training pair whose English or Korean also stands in a held-out pair is left out.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

Pair = tuple[str, str]

STRETCH = 40  # neighbouring lines of help that are held out together: a page or two
TEST, VALID = 0.04, 0.03  # shares of stretches and of sentences


def part_of(key: str) -> str:
    """Which part something belongs to, by its name alone: always the same, whatever else there is."""
    share = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=6).digest()) / 2**48
    return "test" if share < TEST else "valid" if share < TEST + VALID else "train"


def split(pairs: Iterable[Pair], key: Callable[[int, Pair], str]) -> dict[str, list[Pair]]:
    parts: dict[str, list[Pair]] = {"train": [], "valid": [], "test": []}
    for number, pair in enumerate(pairs):
        parts[part_of(key(number, pair))].append(pair)
    return parts


def folded(text: str) -> str:
    return " ".join(text.lower().split()).strip(" .!?")


def without_held_out(parts: dict[str, list[Pair]]) -> dict[str, list[Pair]]:
    """Nothing of the test stands in validation, nothing of either in training; no held-out pair twice."""
    seen: set[str] = set()
    for name in ("test", "valid", "train"):
        kept = [pair for pair in parts[name] if not seen.intersection(map(folded, pair))]
        seen.update(folded(text) for pair in kept for text in pair)
        parts[name] = list(dict.fromkeys(kept))
    return parts


def read(path: str) -> list[Pair]:
    opener = gzip.open if path.endswith(".gz") else open
    with opener(path, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split("\t") for line in lines]
    return [(row[0].strip(), row[1].strip()) for row in rows if len(row) >= 2 and row[0].strip()]


def main(libreoffice: str, tatoeba: str, destination: str) -> None:
    sources = {
        "help": split(read(libreoffice), lambda number, _: f"help {number // STRETCH}"),
        "tatoeba": split(read(tatoeba), lambda _, pair: f"tatoeba {folded(pair[0])}"),
    }
    together = {part: [p for source in sources.values() for p in source[part]] for part in sources["help"]}
    clean = without_held_out(together)
    written = {f"{part}.tsv": pairs for part, pairs in clean.items()}
    for name, source in sources.items():  # the test by source, too
        own = set(source["test"])
        written[f"test-{name}.tsv"] = [pair for pair in clean["test"] if pair in own]
    folder = Path(destination)
    folder.mkdir(parents=True, exist_ok=True)
    for name, pairs in written.items():
        text = "".join(f"{english}\t{korean}\n" for english, korean in pairs)
        (folder / name).write_text(text, encoding="utf-8")
        print(f"{folder / name}: {len(pairs):,} pairs")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
