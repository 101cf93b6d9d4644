// The map of sounds, put into pages that have one by html.py: points to point at and to play, by cluster or by label.
(() => {
const box = document.getElementById("map");
const DATA = JSON.parse(box.querySelector("script").textContent);
const part = name => box.querySelector(`[data-part=${name}]`);
const [canvas, audio, said, legend, colouring, search] = ["canvas", "audio", "said", "legend", "by", "search"].map(part);
const POINTS = DATA.points.length, MARGIN = 24, REACH = 14, TITLES = 24;  // pixels; TITLES on the map at most

const groups = { cluster: DATA.cluster, label: DATA.label };  // of each point the place among the names
const names = { cluster: DATA.clusters, label: DATA.labels };
let by = colouring.value, only = null, found = null, at = { x: 0.5, y: 0.5, zoom: 1 }, pointed = -1, playing = -1;
let waiting = false, places = [];

// Hues go round by the golden angle, so that neighbours in the list differ; what has no group is grey.
const hue = group => group < 0 ? "hsl(0 0% 60%)" : `hsl(${(group * 137.508) % 360} 75% ${group % 2 ? 42 : 58}%)`;
const isShown = i => (only === null || groups[by][i] === only) && (found === null || found.has(i));

const redraw = () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); });
};

const draw = () => {
  const wide = canvas.parentElement.clientWidth, high = Math.round(Math.min(0.62 * wide + 120, 620));
  const dots = devicePixelRatio || 1, style = getComputedStyle(box);
  const colour = name => style.getPropertyValue("--" + name).trim();
  canvas.style.width = wide + "px";
  canvas.style.height = high + "px";
  canvas.style.touchAction = at.zoom > 1 ? "none" : "";  // a finger moves the map where it is zoomed, else the page
  canvas.width = Math.round(wide * dots);
  canvas.height = Math.round(high * dots);
  const pen = canvas.getContext("2d");
  pen.scale(dots, dots);
  const size = Math.min(wide, high) - 2 * MARGIN;
  places = DATA.points.map(([x, y]) => [
    wide / 2 + (x - at.x) * size * at.zoom, high / 2 - (y - at.y) * size * at.zoom,
  ]);
  const radius = Math.max(2, Math.min(6, 260 / Math.sqrt(POINTS))) * Math.min(2, Math.sqrt(at.zoom));
  const dot = (i, size) => {
    pen.beginPath();
    pen.arc(places[i][0], places[i][1], size, 0, 7);
  };
  pen.globalAlpha = 0.12;
  pen.fillStyle = colour("soft");
  for (let i = 0; i < POINTS; i++) if (!isShown(i)) { dot(i, radius); pen.fill(); }
  pen.globalAlpha = 0.8;
  for (let i = 0; i < POINTS; i++) if (isShown(i)) {  // those that can be played are larger
    pen.fillStyle = hue(groups[by][i]);
    dot(i, DATA.clip[i] ? radius : 0.65 * radius);
    pen.fill();
  }
  pen.globalAlpha = 1;
  titles(pen, colour, wide, high);
  pen.strokeStyle = colour("ink");
  for (const [i, width] of [[playing, 3], [pointed, 1.5]]) {
    if (i < 0) continue;
    pen.lineWidth = width;
    dot(i, radius + 3);
    pen.stroke();
  }
};

// A group's name stands at the middle of its points, the largest groups first, where there is room.
const titles = (pen, colour, wide, high) => {
  const members = names[by].map(() => []);
  groups[by].forEach((group, i) => { if (group >= 0 && isShown(i)) members[group].push(places[i]); });
  const order = members.map((own, group) => [own, group]).filter(([own]) => own.length);
  order.sort((a, b) => b[0].length - a[0].length);
  const taken = [], median = values => values.sort((a, b) => a - b)[values.length >> 1];
  pen.font = "600 12px system-ui, sans-serif";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.lineWidth = 4;
  pen.lineJoin = "round";
  for (const [own, group] of order.slice(0, TITLES)) {
    const text = shortened(names[by][group], 24), half = pen.measureText(text).width / 2 + 3;
    const x = median(own.map(place => place[0])), y = median(own.map(place => place[1]));
    const outside = x - half < 0 || x + half > wide || y < 8 || y > high - 8;
    if (outside || taken.some(([a, b, c]) => Math.abs(a - x) < half + c && Math.abs(b - y) < 15)) continue;
    taken.push([x, y, half]);
    pen.strokeStyle = colour("card");
    pen.strokeText(text, x, y);
    pen.fillStyle = colour("ink");
    pen.fillText(text, x, y);
  }
};

const shortened = (text, length) => text.length > length ? text.slice(0, length - 1) + "…" : text;

const listed = () => {
  const counts = names[by].map(() => 0);
  groups[by].forEach(group => { if (group >= 0) counts[group] += 1; });
  const order = counts.map((count, group) => [count, group]).filter(([count]) => count).sort((a, b) => b[0] - a[0]);
  legend.replaceChildren(...order.map(([count, group]) => {
    const button = document.createElement("button"), spot = document.createElement("i");
    button.type = "button";
    button.setAttribute("aria-pressed", only === group);
    spot.style.background = hue(group);
    button.append(spot, `${names[by][group]} (${count.toLocaleString("en")})`);
    button.addEventListener("click", () => { only = only === group ? null : group; listed(); redraw(); });
    return button;
  }));
};

const clock = seconds => {
  const minutes = Math.floor(seconds / 60);
  return `${minutes}:${(seconds - 60 * minutes).toFixed(1).padStart(4, "0")}`;
};
const tell = i => {
  const label = DATA.label[i] < 0 ? "" : `${DATA.labels[DATA.label[i]]}, `;
  const cluster = DATA.cluster[i] < 0 ? "no cluster" : DATA.clusters[DATA.cluster[i]];
  said.textContent = `${label}${DATA.file[i]}, ${clock(DATA.start[i])} to ${clock(DATA.end[i])}, ${cluster}`
    + (DATA.clip[i] ? "" : ", no sound is kept");
};
const nearest = pointer => {
  const area = canvas.getBoundingClientRect(), x = pointer.clientX - area.left, y = pointer.clientY - area.top;
  let best = -1, least = REACH ** 2;
  places.forEach(([a, b], i) => {
    const far = (a - x) ** 2 + (b - y) ** 2;
    if (far < least && isShown(i)) [best, least] = [i, far];
  });
  return best;
};
const play = i => {
  playing = pointed = i;
  tell(i);
  if (DATA.clip[i]) {
    audio.src = DATA.clip[i];
    audio.preload = "auto";
    audio.play().catch(() => {});
  }
  redraw();
};
const zoom = (factor, x = canvas.clientWidth / 2, y = canvas.clientHeight / 2) => {
  const size = Math.min(canvas.clientWidth, canvas.clientHeight) - 2 * MARGIN;
  const next = Math.min(60, Math.max(1, at.zoom * factor)), shift = 1 / at.zoom - 1 / next;
  at.x += (x - canvas.clientWidth / 2) / size * shift;
  at.y -= (y - canvas.clientHeight / 2) / size * shift;
  at.zoom = next;
  if (next === 1) at = { x: 0.5, y: 0.5, zoom: 1 };
  redraw();
};

let drag = null;
canvas.addEventListener("pointerdown", pointer => {
  drag = { x: pointer.clientX, y: pointer.clientY, from: { ...at }, moved: false };
  if (at.zoom > 1) canvas.setPointerCapture(pointer.pointerId);
});
canvas.addEventListener("pointermove", pointer => {
  if (drag && at.zoom > 1) {
    const size = (Math.min(canvas.clientWidth, canvas.clientHeight) - 2 * MARGIN) * at.zoom;
    const [x, y] = [pointer.clientX - drag.x, pointer.clientY - drag.y];
    drag.moved ||= Math.hypot(x, y) > 4;
    if (drag.moved) {
      at = { ...drag.from, x: drag.from.x - x / size, y: drag.from.y + y / size };
      return redraw();
    }
  }
  const i = nearest(pointer);
  if (i !== pointed) {
    pointed = i;
    canvas.style.cursor = i < 0 ? "" : "pointer";
    if (i >= 0) tell(i);
    redraw();
  }
});
canvas.addEventListener("pointerup", pointer => {
  const moved = drag && drag.moved, i = nearest(pointer);
  drag = null;
  if (!moved && i >= 0) play(i);
});
canvas.addEventListener("pointerleave", () => { if (!drag) { pointed = -1; redraw(); } });
canvas.addEventListener("pointercancel", () => { drag = null; });
canvas.addEventListener("wheel", wheel => {
  if (!wheel.ctrlKey && !wheel.metaKey) return;  // else the wheel scrolls the page
  wheel.preventDefault();
  const area = canvas.getBoundingClientRect();
  zoom(Math.exp(-wheel.deltaY / 300), wheel.clientX - area.left, wheel.clientY - area.top);
}, { passive: false });
canvas.addEventListener("keydown", key => {
  const keys = { "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5) };
  if (!keys[key.key] || key.ctrlKey || key.metaKey) return;
  key.preventDefault();
  keys[key.key]();
});
part("in").addEventListener("click", () => zoom(2));
part("out").addEventListener("click", () => zoom(0.5));
part("all").addEventListener("click", () => { only = null; zoom(0); listed(); });
colouring.addEventListener("change", () => { by = colouring.value; only = null; listed(); redraw(); });
search.addEventListener("input", () => {
  const text = search.value.trim().toLowerCase();
  const label = i => DATA.label[i] < 0 ? "" : DATA.labels[DATA.label[i]];
  found = text === "" ? null
    : new Set([...DATA.file.keys()].filter(i => `${DATA.file[i]}\n${label(i)}`.toLowerCase().includes(text)));
  said.textContent = found === null ? "" : `${found.size.toLocaleString("en")} points`;
  redraw();
});
audio.addEventListener("error", () => { if (audio.src) said.textContent = "The sound of this point is not beside the page."; });
new ResizeObserver(redraw).observe(canvas.parentElement);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
listed();
redraw();
})();
