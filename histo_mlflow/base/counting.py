"""How many of a thing there are, in words that suit one and many; knows nothing of what is counted."""


def many(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun: "1 tile", "2 tiles"; `plural` where an s does not make it."""
    return f"{n} {noun if n == 1 else plural or f'{noun}s'}"
