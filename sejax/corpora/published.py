"""The published numbers of a corpus, compared with what is found on disk."""

from collections.abc import Mapping


def compare_counts(title: str, what: str, expected: Mapping[str, int], found: Mapping[str, int]) -> str:
    """Returns a note that says whether the counts of a corpus are the published ones, and which differ.

    Args:
      title: the name of the corpus.
      what: is counted, such as "rows per part".
      expected: the published count of each thing; "utterances" and the like for the total.
      found: the count of each thing that was found; others than those of `expected` do not count.
    """
    differ = [
        f"{name} expected {n:,}, found {found.get(name, 0):,}"
        for name, n in expected.items()
        if n != found.get(name, 0)
    ]
    if differ:
        return f"{what} that are not the published ones of {title}: {'; '.join(differ)}"
    return f"{what} as published for {title}: {', '.join(f'{name} {n:,}' for name, n in expected.items())}"
