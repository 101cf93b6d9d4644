"""Where the windows of a recording lie, from its length alone: what streams of windows are held against."""


def windows(samples: int, window: int, hop: int) -> list[tuple[int, int]]:
    """(start, end) of windows every `hop`, which together cover all samples; the last may be short."""
    count = 1 + -(-max(0, samples - window) // hop)
    return [(i * hop, min(i * hop + window, samples)) for i in range(count)]
