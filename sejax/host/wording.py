"""Words around numbers in messages, tables and the report."""


def count(number: int, noun: str) -> str:
    """Returns a number with its noun: `1 fold`, `3 folds`, `10,039 utterances`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
