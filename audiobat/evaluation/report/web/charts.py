"""Layer curves (Fig. 4 of the paper) as SVG inside the page: a pointer or the arrow keys show each block's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from audiobat.evaluation.report.curves import Layers, rho_text
from audiobat.evaluation.report.rows import Summary, deviation, metric_title

WIDE, HIGH = 340, 290  # of the view box; the page scales it
LEFT, RIGHT = 42, 334
PROBES, GATES = (26, 142), (176, 256)  # upper and lower end of the two panels, in y


def layer_chart(curve: Layers) -> str:
    """One model's curve with its caption; the probes' panel shows their range, the gate's starts at 0."""
    step = (RIGHT - LEFT) / curve.depth
    centres = [LEFT + step * (block + 0.5) for block in range(curve.depth)]
    summaries = curve.summaries if curve.probes else []
    gates = [[gate[block] for gate in curve.gates] for block in range(curve.depth)] if curve.gates else []
    parts = [*probes_svg(summaries, centres), *gates_svg(gates, centres, step)]
    spots = [spot_svg(curve, block, centre, step, summaries, gates) for block, centre in enumerate(centres)]
    every = math.ceil(curve.depth / 12)
    ticks = [
        f'<text x="{centre:.1f}" y="{GATES[1] + 14}" text-anchor="middle">{block + 1}</text>'
        for block, centre in enumerate(centres)
        if block % every == 0
    ]
    metric = metric_title(curve.metric)
    top = 0 if summaries else GATES[0] - 26  # a gate alone leaves no room for probes
    names = [
        f'<text x="4" y="10">linear probe, {escape(metric)}, %</text>' if summaries else "",
        f'<text x="4" y="{GATES[0] - 12}">gate weight</text>' if gates else "",
        f'<text x="{(LEFT + RIGHT) / 2}" y="{HIGH - 4}" text-anchor="middle">block</text>',
    ]
    return (
        f'<figure data-data="{escape(curve.data)}"><svg class="layers" viewBox="0 {top} {WIDE} {HIGH - top}" '
        f'role="group" aria-label="{escape(curve.model)} on {escape(curve.data)}: probes and gate by block">'
        f"{''.join([*names, *parts, *ticks, *spots])}</svg>"
        f"<figcaption><b>{escape(curve.model)}</b>, {escape(curve.data)}: {escape(rho_text(curve))}</figcaption>"
        "</figure>"
    )


def probes_svg(summaries: Sequence[Summary], centres: Sequence[float]) -> list[str]:
    """The upper panel: a line through the blocks over the band of their intervals."""
    known = [(x, s) for x, s in zip(centres, summaries, strict=False) if not math.isnan(s.value)]
    if not known:
        return []
    ends = [v for _, s in known for v in (s.low, s.high, s.value) if not math.isnan(v)]
    low, high = min(ends), max(ends)
    high += (high == low) * 0.01  # one value alone still needs a scale

    def y(value: float) -> float:
        return PROBES[1] - (value - low) / (high - low) * (PROBES[1] - PROBES[0])

    line = " ".join(f"{x:.1f},{y(s.value):.1f}" for x, s in known)
    sure = [(x, s) for x, s in known if not math.isnan(s.low + s.high)]
    upper = [f"{x:.1f},{y(s.high):.1f}" for x, s in sure]
    lower = [f"{x:.1f},{y(s.low):.1f}" for x, s in reversed(sure)]
    return [
        *axis(PROBES, f"{100 * high:.1f}", f"{100 * low:.1f}"),
        f'<polygon class="band" points="{" ".join(upper + lower)}"/><polyline class="curve" points="{line}"/>',
        *(f'<circle class="dot" cx="{x:.1f}" cy="{y(s.value):.1f}" r="3.2"/>' for x, s in known),
    ]


def gates_svg(gates: Sequence[Sequence[float]], centres: Sequence[float], step: float) -> list[str]:
    """The lower panel: means over seeds as bars, and the line where all gates start."""
    if not gates:
        return []
    means = [sum(weights) / len(weights) for weights in gates]
    scale = (GATES[1] - GATES[0]) / max(*means, 1 / len(means))
    even = GATES[1] - scale / len(means)
    return [
        *axis(GATES, f"{max(*means, 1 / len(means)):.2f}", "0"),
        *(
            f'<rect class="gate" x="{x - 0.36 * step:.1f}" y="{GATES[1] - scale * mean:.1f}" '
            f'width="{0.72 * step:.1f}" height="{scale * mean:.1f}"/>'
            for x, mean in zip(centres, means, strict=True)
        ),
        f'<line class="even" x1="{LEFT}" x2="{RIGHT}" y1="{even:.1f}" y2="{even:.1f}"/>',
    ]


def axis(panel: tuple[int, int], high: str, low: str) -> list[str]:
    """The two axes of a panel, with the ends of its scale."""
    top, bottom = panel
    return [
        f'<path class="axis" fill="none" d="M{LEFT} {top}V{bottom}H{RIGHT}"/>',
        f'<text x="{LEFT - 5}" y="{top + 4}" text-anchor="end">{high}</text>',
        f'<text x="{LEFT - 5}" y="{bottom + 4}" text-anchor="end">{low}</text>',
    ]


def spot_svg(
    curve: Layers,
    block: int,
    centre: float,
    step: float,
    summaries: Sequence[Summary],
    gates: Sequence[Sequence[float]],
) -> str:
    """A block's column, which page.js shows the numbers of when it is pointed at or has the focus."""
    lines = [f"block {block + 1}"]
    if summaries:
        s = summaries[block]
        spread = "" if s.sd_seeds is None else f", sd {100 * s.sd_seeds:.2f} over seeds"
        name = metric_title(curve.metric)
        lines.append(f"{name} {100 * s.value:.2f} [{100 * s.low:.1f}, {100 * s.high:.1f}]{spread}")
    if gates:
        sd = deviation(gates[block])
        spread = "" if sd is None else f" ± {sd:.3f}"
        lines.append(f"gate {sum(gates[block]) / len(gates[block]):.3f}{spread}")
    text = escape("\n".join(lines)).replace("\n", "&#10;")
    return (
        f'<g class="spot" role="img" tabindex="{-1 if block else 0}" data-tip="{text}" aria-label="{text}">'
        f'<rect class="column" x="{centre - step / 2:.1f}" y="{PROBES[0] - 4}" width="{step:.1f}" '
        f'height="{GATES[1] - PROBES[0] + 4}"/></g>'
    )
