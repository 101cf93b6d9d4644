"""`python docs/make_recipes.py` writes the tables of recipes.md anew; run it when a recipe or a default changes."""

from pathlib import Path

from audiobat.config.differences import differences
from audiobat.config.recipes import recipe_files
from audiobat.config.sources import Setting, as_yaml, preface

PAGE = Path(__file__).with_name("recipes.md")
START = "<!-- Below: tables by docs/make_recipes.py. -->\n"
PAIRS = {
    "Pre-training": [
        ("bat_base", "bat_base_released"),
        ("bat_base", "eat_base"),
        ("eat_base", "eat_large"),
        ("eat_base", "sslam"),
        ("eat_base", "data2vec2"),
        ("bat_base", "audio_mae"),
    ],
    "Fine-tuning": [
        ("finetune/as20k", "finetune/as20k_released"),
        ("finetune/as20k", "finetune/eat_as20k"),
        ("finetune/as2m", "finetune/as2m_released"),
        ("finetune/eat_as2m", "finetune/sslam_as2m"),
        ("finetune/esc50", "finetune/esc50_released"),
        ("finetune/esc50", "finetune/eat_esc50"),
        ("finetune/spc2-12-folder", "finetune/spc2-12-folder_released"),
        ("finetune/spc2-35", "finetune/eat_spc2-35"),
    ],
    "Probing": [
        ("probe/paper/as20k", "probe/released/as20k"),
        ("probe/paper/esc50", "probe/released/esc50"),
        ("probe/paper/spc2", "probe/released/spc2"),
    ],
}


def tables() -> str:
    """The tables of all pairs as Markdown."""
    parts = []
    for title, pairs in PAIRS.items():
        parts.append(f"\n## {title}\n")
        parts += [table(a, b) for a, b in pairs]
    return "".join(parts)


def table(a: str, b: str) -> str:
    """What the second recipe's file says first, and a line for each field in which two recipes differ."""
    lines = [
        f"\n### {b} against {a}\n",
        preface(recipe_files(b)[-1].text) + "\n",
        f"| field | {a} | source | {b} | source |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [f"| `{field}` | {cells(x)} | {cells(y)} |" for field, (x, y) in differences(a, b).items()]
    return "\n".join(lines) + "\n"


def cells(setting: Setting) -> str:
    """A value and its source as two cells."""
    value = as_yaml(setting.value)
    return " | ".join(text.replace("|", "\\|") for text in (f"`{value}`", setting.source))


def page() -> str:
    """The page as it is above the tables, and the tables as they should be."""
    return PAGE.read_text(encoding="utf-8").partition(START)[0] + START + tables()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
