"""What the site has otherwise than the repository: no files beside docs/, and no word for the tests in a fence."""

import re


def on_page_markdown(markdown: str, **_: object) -> str:
    """Links that leave docs/ become their text; ```` ```python compile ```` becomes ```` ```python ````."""
    markdown = re.sub(r"\[([^\]]+)\]\(\.\./[^)]*\)", r"\1", markdown)
    return re.sub(r"^```python compile$", "```python", markdown, flags=re.MULTILINE)
