"""The lines by which a benchmark says what it found beside its target; `make bench` collects them."""

MARK = "TARGET |"


def say(what: str, found: str, target: str, met: bool | None = None) -> None:
    """Print one line. `met`: whether the target is reached; None where there is none to reach."""
    verdict = {True: "met", False: "missed", None: ""}[met]
    print(f"{MARK} {what} | {found} | {target} | {verdict}", flush=True)
