// The script of pages, put into each by html.py.

// A heading sorts its table by the cells' data-value: numbers from the highest, words from A; missing values stay last.
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

// A block of a layer chart shows its numbers when it is pointed at or has the focus; arrow keys walk the blocks.
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

// A box that is not ticked hides all parts of its data set or kind of head.
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

// A click on a row's mark compares the rows of its data set with it. w, t and l are the letters of data-verdicts.
const MARKS = {
  w: ["▲", "better", 1], t: ["=", "no difference", 0], l: ["▼", "worse", -1], r: ["◆", "reference", 2],
};
const rows = [...document.querySelectorAll("tr:has(.compared)")];
const compare = reference => {
  for (const row of rows.filter(other => other.dataset.data === reference.dataset.data)) {
    const is = row === reference;
    const mark = MARKS[is ? "r" : row.dataset.verdicts[reference.dataset.place]];
    const cell = row.querySelector(".compared");
    const button = cell.querySelector("button");
    cell.dataset.value = mark ? mark[2] : "";
    cell.className = "compared " + (mark ? "mark" + mark[2] : "");
    button.textContent = mark ? mark[0] + " " + mark[1] : "not compared";
    button.setAttribute("aria-pressed", is);
  }
};
rows.forEach(row => row.querySelector(".compared button").addEventListener("click", () => compare(row)));
