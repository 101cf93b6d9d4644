"""Where the windows of a recording lie, from its length alone: what streams of windows are held against."""


def windows(samples: int, window: int, hop: int, least: int = 1) -> list[tuple[int, int]]:
    """(start, end) of windows every `hop`, which cover all samples but a rest shorter than `least`."""
    count = 1 + -(-max(0, samples - window) // hop)
    spans = [(i * hop, min(i * hop + window, samples)) for i in range(count)]
    return [span for span in spans if span[0] == 0 or span[1] - span[0] >= min(least, window)]
