"""The style and the scripts of pages, and the rule by which a browser fetches nothing."""

# Whatever the page says, the browser fetches nothing.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

CSS = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5a6470; --page: #f6f7f8; --card: #ffffff; --line: #d5dade;
  --link: #0072b2; --best: #d9efe6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #a4adb6; --page: #15181b; --card: #1f2429;
  --line: #3a424a; --link: #56b4e9; --best: #0c4a38; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { margin: 0 0 .5rem; line-height: 1.2; }
h2 { margin: 0 0 .75rem; font-size: 1.25rem; }
.lead { font-size: 1.05rem; }
.note, figcaption { color: var(--soft); font-size: .9rem; }
section { margin-top: 1.5rem; padding: 1.25rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
.scroll { overflow-x: auto; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .5rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
th button { all: unset; cursor: pointer; color: var(--link); font-weight: 600; }
th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort="ascending"] button::after { content: " ▲"; }
th[aria-sort="descending"] button::after { content: " ▼"; }
.best { background: var(--best); font-weight: 700; }
.best::after { content: " ★"; }
figure { margin: 0; }
figure img { display: block; width: 100%; min-width: 34rem; max-width: 52rem; margin: 0 auto .75rem;
  padding: .5rem; background: #ffffff; border-radius: .4rem; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem; }
article { padding: .75rem; border: 1px solid var(--line); border-radius: .5rem; }
article img { width: 100%; background: #ffffff; border-radius: .3rem; }
audio { width: 100%; }
article p { margin: .4rem 0; }
ol { margin: 0; padding: 0; list-style: none; font-size: .9rem; }
ol li span { flex: 0 0 10.5rem; }
ol li { display: flex; gap: .5rem; align-items: center; }
ol li meter { flex: 1; min-width: 2rem; }
.hit span { font-weight: 700; }
.hit span::after { content: " ✓"; }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1rem; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
"""

REPORT_CSS = (
    CSS
    + """
main { max-width: 84rem; }
small { color: var(--soft); white-space: nowrap; }
.filters { display: flex; flex-wrap: wrap; gap: 1rem; margin-top: 1rem; }
fieldset { display: flex; flex-wrap: wrap; gap: .3rem .9rem; border: 1px solid var(--line); border-radius: .5rem; }
fieldset label { white-space: nowrap; }
table { width: max-content; min-width: 100%; }
td.name { white-space: normal; max-width: 20rem; overflow-wrap: anywhere; }
th { vertical-align: bottom; }
.results table { width: 100%; }
.results th { white-space: normal; }
.results td { vertical-align: top; }
.results td.name { min-width: 6.5rem; }
.results small { display: block; }
.results .best::before { content: "★ "; }
.results .best::after { content: none; }
.results th:nth-child(2), .results td:nth-child(2) { position: sticky; left: 0; background: var(--card); }
@media (max-width: 40rem) { table { font-size: .85rem; } td.name { max-width: 9rem; } }
th:nth-child(3), td:nth-child(3) { text-align: left; }
.versus button { all: unset; cursor: pointer; white-space: nowrap; }
.versus button:focus-visible { outline: 2px solid var(--link); }
.versus button[aria-pressed="true"] { font-weight: 700; }
.mark1 { color: var(--win); }
.mark-1 { color: var(--loss); }
:root { --win: #0b6b4b; --loss: #a8430a; --bar: #d98d00; --curve: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --win: #4fd1a5; --loss: #ff9d66; --bar: #e69f00; --curve: #56b4e9; } }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(19rem, 1fr)); gap: 1rem; }
.charts figure { min-width: 0; }
.charts figcaption { overflow-wrap: anywhere; }
svg.layers { width: 100%; height: auto; display: block; }
svg.layers text { fill: var(--soft); font-size: 12px; }
svg.layers .axis { stroke: var(--line); }
svg.layers .even { stroke: var(--ink); stroke-dasharray: 4 3; }
svg.layers .curve { fill: none; stroke: var(--curve); stroke-width: 2; }
svg.layers .dot { fill: var(--curve); }
svg.layers .band { fill: var(--curve); opacity: .18; }
svg.layers .gate { fill: var(--bar); }
svg.layers .spot rect.column { fill: var(--ink); opacity: 0; }
svg.layers .spot:hover rect.column, svg.layers .spot:focus rect.column { opacity: .1; }
svg.layers .spot:focus { outline: none; }
#tip { position: absolute; z-index: 1; max-width: min(26rem, 94vw); padding: .35rem .6rem;
  background: var(--ink); color: var(--page);
  border-radius: .35rem; font-size: .85rem; white-space: pre-line; pointer-events: none; }
[hidden] { display: none !important; }
details { margin-top: .75rem; }
summary { cursor: pointer; color: var(--link); }
dd { margin-bottom: .2rem; }
.why { color: var(--soft); font-size: .9rem; }
"""
)

SCRIPT = """
const number = text => text === "" || isNaN(text) ? null : Number(text);
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const value = row => row.cells[column].dataset.value;
    const rows = [...body.rows];
    const numeric = rows.some(row => number(value(row)) !== null);
    const missing = row => numeric ? number(value(row)) === null : value(row) === "";
    const order = heading.getAttribute("aria-sort");
    const down = order ? order === "ascending" : numeric;
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const compare = (a, b) => numeric ? number(value(a)) - number(value(b))
      : value(a).localeCompare(value(b), "en", { numeric: true });
    rows.sort((a, b) => missing(a) - missing(b) || (missing(a) ? 0 : (down ? -1 : 1) * compare(a, b)));
    body.append(...rows);
  }));
}
"""

REPORT_SCRIPT = (
    SCRIPT
    + """
const tip = document.getElementById("tip");
const hide = () => { tip.hidden = true; };
const show = spot => {
  tip.textContent = spot.dataset.tip;
  tip.hidden = false;
  const box = spot.getBoundingClientRect();
  const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = left + scrollX + "px";
  tip.style.top = (above < 0 ? box.bottom + 6 : above) + scrollY + "px";
};
for (const chart of document.querySelectorAll("svg.layers")) {
  const spots = [...chart.querySelectorAll(".spot")];
  spots.forEach((spot, place) => {
    spot.addEventListener("mouseenter", () => show(spot));
    spot.addEventListener("mouseleave", hide);
    spot.addEventListener("focus", () => show(spot));
    spot.addEventListener("blur", hide);
    spot.addEventListener("keydown", event => {
      if (event.key === "Escape") return hide();
      const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -place, End: spots.length - 1 - place };
      const next = spots[place + steps[event.key]];
      if (!next) return;
      event.preventDefault();
      spot.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}
const filters = [...document.querySelectorAll("input[data-filter]")];
const filter = () => {
  const off = kind => new Set(filters.filter(box => box.dataset.filter === kind && !box.checked).map(box => box.value));
  const [data, head] = [off("data"), off("head")];
  for (const part of document.querySelectorAll("[data-data]")) {
    part.hidden = data.has(part.dataset.data) || head.has(part.dataset.head);
  }
};
filters.forEach(box => box.addEventListener("change", filter));
filter();
const MARKS = {
  w: ["▲", "better", 1], t: ["=", "no difference", 0], l: ["▼", "worse", -1], r: ["◆", "held against", 2],
};
const rows = [...document.querySelectorAll("tr[data-place]")];
const against = reference => {
  for (const row of rows.filter(other => other.dataset.data === reference.dataset.data)) {
    const is = row === reference;
    const mark = MARKS[is ? "r" : row.dataset.duels[reference.dataset.place]];
    const cell = row.querySelector(".versus");
    const button = cell.querySelector("button");
    cell.dataset.value = mark ? mark[2] : "";
    cell.className = "versus " + (mark ? "mark" + mark[2] : "");
    button.textContent = mark ? mark[0] + " " + mark[1] : "not compared";
    button.setAttribute("aria-pressed", is);
  }
};
rows.forEach(row => row.querySelector(".versus button").addEventListener("click", () => against(row)));
"""
)
