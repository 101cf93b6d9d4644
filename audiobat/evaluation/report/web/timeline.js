// The timeline of recordings, put into pages that have one by html.py: spectrogram, truth, detections, threshold.
(() => {
const box = document.getElementById("timeline");
const DATA = JSON.parse(box.querySelector("script").textContent);
const part = name => box.querySelector(`[data-part=${name}]`);
const [scroller, sheet, canvas, audio, slider] = ["scroll", "sheet", "canvas", "audio", "threshold"].map(part);
const [picker, filter, rule, said] = ["recording", "class", "rule", "said"].map(part);
const [counts, overview] = ["counts", "overview"].map(part);
const PICTURE = 144, AXIS = 20, LANE = 46, BAR = 9;  // heights in pixels
const CLOSEST = 200;  // pixels of a second, at most

let recording, picture = 0, scale = 1, threshold = null, shown = [], tiles = [], pointed = null, waiting = false;
// picture: the height of the spectrogram, 0 where the recording was not there
// shown: a lane for each class of the recording: {place, truth: [{start, end, hit}], found: [{start, end, score, hit}]}

// ---- from scores to events ----

const unpacked = async text => {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return await new Response(stream).arrayBuffer();
};

// Scores were rounded up to hundredths, which changes neither a comparison with a whole hundredth nor a median.
const loadScores = async one => {
  if (!one.scores || one.scores.ready) return;
  const [values, spans] = await Promise.all([one.scores.values, one.scores.spans].map(unpacked));
  const steps = new Int32Array(spans), times = new Float64Array(steps.length);
  for (let i = 0, sum = 0; i < steps.length; i++) times[i] = (sum += steps[i]) / 1000;
  one.scores.times = times;  // start and end of each frame or window, in turn
  one.scores.hundredths = new Uint8Array(values);  // class after class
  one.scores.smooth = [];
  one.scores.ready = true;
};

const smoothed = (scores, row) => scores.smooth[row] ??= filtered(scores, row);
const filtered = (scores, row) => {
  const count = scores.times.length / 2, raw = scores.hundredths.subarray(row * count, (row + 1) * count);
  const reach = (scores.median - 1) / 2;
  if (reach < 1) return raw;
  const result = new Uint8Array(count), near = [];
  for (let i = 0; i < count; i++) {
    near.length = 0;
    for (let j = i - reach; j <= i + reach; j++) {
      const place = ((j % (2 * count)) + 2 * count) % (2 * count);  // the recording goes on as its mirror image
      near.push(raw[Math.min(place, 2 * count - 1 - place)]);
    }
    result[i] = near.sort((a, b) => a - b)[reach];
  }
  return result;
};

const eventsAbove = (scores, row, limit) => {
  const levels = smoothed(scores, row), times = scores.times, found = [];
  let open = null;
  for (let i = 0; i < levels.length; i++) {
    if (levels[i] <= limit) { open = null; continue; }
    if (!open || scores.windows) found.push(open = { start: times[2 * i], end: 0, sum: 0, frames: 0 });
    open.end = times[2 * i + 1];
    open.sum += levels[i];
    open.frames += 1;
  }
  return found.map(event => ({ start: event.start, end: event.end, score: event.sum / event.frames / 100 }));
};

// ---- hits ----

const NEAR = 1e-9;  // seconds of rounding

// By overlap: an event is right if it shares time with any of its class on the other side.
const overlap = (truth, found) => {
  for (const [ones, others] of [[truth, found], [found, truth]]) {
    const order = [...others].sort((a, b) => a.start - b.start);
    let longest = 0;
    order.forEach(event => { longest = Math.max(longest, event.end - event.start); });
    for (const one of ones) {
      one.hit = false;
      for (let i = firstFrom(order, one.start - longest); i < order.length && order[i].start < one.end && !one.hit; i++) {
        one.hit = Math.min(one.end, order[i].end) - Math.max(one.start, order[i].start) > NEAR;
      }
    }
  }
};

const firstFrom = (order, time) => {  // the first event that begins at this time or later
  let low = 0, high = order.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (order[middle].start < time) low = middle + 1; else high = middle;
  }
  return low;
};

// One to one: the largest matching of events of a class within the collars.
const match = (truth, found, collar) => {
  const slack = collar.slack + NEAR;
  const endsFit = (a, b) => collar.offset === null
    || Math.abs(a.end - b.end) <= Math.max(collar.offset, collar.share * (a.end - a.start)) + slack;
  const order = [...found].sort((a, b) => a.start - b.start), partner = new Map();
  [...truth, ...found].forEach(event => { event.hit = false; });
  const fitting = new Map(truth.map(event => {
    const fits = [];
    for (let i = firstFrom(order, event.start - collar.onset - slack); i < order.length; i++) {
      if (order[i].start > event.start + collar.onset + slack) break;
      if (endsFit(event, order[i])) fits.push(order[i]);
    }
    return [event, fits];
  }));
  const pair = (event, seen) => fitting.get(event).some(other => {  // others make room if they can
    if (seen.has(other)) return false;
    seen.add(other);
    if (partner.has(other) && !pair(partner.get(other), seen)) return false;
    partner.set(other, event);
    other.hit = event.hit = true;
    return true;
  });
  truth.forEach(event => pair(event, new Set()));
};

const judge = () => {
  shown = recording.lanes.map(lane => {
    const truth = lane.truth.map(([start, end]) => ({ start, end }));
    let found = lane.found.map(([start, end, score]) => ({ start, end, score }));
    if (threshold !== null) {
      const row = recording.scores ? recording.scores.rows.indexOf(lane.place) : -1;
      found = row < 0 ? found.filter(event => event.score > threshold / 100)
        : eventsAbove(recording.scores, row, threshold);
    }
    const collar = DATA.rules[rule.value];
    collar ? match(truth, found, collar) : overlap(truth, found);
    return { place: lane.place, truth, found };
  });
  count();
};

const lanes = () => shown.filter(lane => filter.value === "" || lane.place === Number(filter.value));

const count = () => {
  const all = lanes(), truth = all.flatMap(lane => lane.truth), found = all.flatMap(lane => lane.found);
  const hits = truth.filter(event => event.hit).length, right = found.filter(event => event.hit).length;
  const precision = right / found.length, recall = hits / truth.length;
  const f1 = precision + recall ? 2 * precision * recall / (precision + recall) : truth.length ? 0 : NaN;
  const share = value => isNaN(value) ? "n/a" : (100 * value).toFixed(1) + "%";
  const values = [
    ["F1", share(f1)], ["precision", share(precision)], ["recall", share(recall)], ["true", truth.length],
    ["missed", truth.length - hits], ["detected", found.length], ["false alarms", found.length - right],
  ];
  counts.replaceChildren(...values.map(([name, value]) => {
    const item = document.createElement("span"), bold = document.createElement("b");
    bold.textContent = value;
    item.append(bold, " " + name);
    return item;
  }));
};

// ---- drawing ----

const colours = () => {
  const style = getComputedStyle(box);
  return name => style.getPropertyValue("--" + name).trim();
};

const redraw = () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; draw(); drawOverview(); });
};

const clock = seconds => {
  const whole = Math.round(1000 * seconds), h = Math.floor(whole / 3600000), m = Math.floor(whole / 60000) % 60;
  const s = ((whole % 60000) / 1000).toFixed(whole % 1000 ? 2 : 0).padStart(whole % 1000 ? 5 : 2, "0");
  return (h ? h + ":" + String(m).padStart(2, "0") : m) + ":" + s;
};

const fitted = (target, wide, high) => {
  const dots = devicePixelRatio || 1;
  target.style.width = wide + "px";
  target.style.height = high + "px";
  target.width = Math.round(wide * dots);
  target.height = Math.round(high * dots);
  const pen = target.getContext("2d");
  pen.scale(dots, dots);
  return pen;
};

const draw = () => {
  const wide = scroller.clientWidth, all = lanes(), high = picture + AXIS + LANE * all.length;
  const pen = fitted(canvas, wide, high), colour = colours();
  const from = scroller.scrollLeft / scale, to = from + wide / scale, x = time => (time - from) * scale;
  sheet.style.height = high + "px";
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "middle";
  pen.fillStyle = "#000004";
  pen.fillRect(0, 0, Math.min(wide, x(recording.seconds)), picture);
  for (const tile of tiles) {
    if (tile.end < from || tile.start > to) continue;
    tile.load();
    if (tile.image.complete && tile.image.naturalWidth) {
      pen.drawImage(tile.image, x(tile.start), 0, (tile.end - tile.start) * scale, picture);
    }
  }
  // the axis of time: as many marks as fit
  const steps = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
  const step = steps.find(step => step * scale >= 64) || 7200;
  pen.fillStyle = colour("soft");
  pen.strokeStyle = colour("line");
  pen.textAlign = "center";
  const origin = recording.start;
  for (let tick = Math.ceil((origin + from) / step); tick * step <= origin + Math.min(to, recording.seconds); tick++) {
    const place = x(tick * step - origin);
    pen.beginPath();
    pen.moveTo(place, picture);
    pen.lineTo(place, high);
    pen.stroke();
    if (place > 18 && place < wide - 18) pen.fillText(clock(tick * step), place, picture + AXIS / 2 + 1);
  }
  all.forEach((lane, number) => drawLane(pen, colour, lane, picture + AXIS + LANE * number, { from, to, x, wide }));
  // frequencies, over the picture
  pen.textAlign = "left";
  for (const [height, name] of recording.ticks) {
    written(pen, name, 4, picture * (1 - height), "#ffffff", "#000000b0");
  }
  if (audio.src && (audio.currentTime > 0 || !audio.paused)) {
    pen.fillStyle = colour("ink");
    pen.fillRect(x(audio.currentTime) - 1, picture, 2, high - picture);
    pen.fillStyle = "#ffffff";
    pen.fillRect(x(audio.currentTime) - 1, 0, 2, picture);
  }
};

const written = (pen, text, x, y, ink, paper) => {
  pen.strokeStyle = paper;
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.strokeText(text, x, y);
  pen.lineWidth = 1;
  pen.fillStyle = ink;
  pen.fillText(text, x, y);
};

const drawLane = (pen, colour, lane, top, { from, to, x, wide }) => {
  pen.strokeStyle = colour("line");
  pen.beginPath();
  pen.moveTo(0, top + 0.5);
  pen.lineTo(wide, top + 0.5);
  pen.stroke();
  const scores = recording.scores, row = scores && scores.ready ? scores.rows.indexOf(lane.place) : -1;
  if (row >= 0) drawScores(pen, colour, row, top, { from, to, x, wide });
  const bar = (event, y, ink, filled) => {
    if (event.end < from || event.start > to) return;
    const left = x(event.start), width = Math.max(2, (event.end - event.start) * scale);
    pen.fillStyle = pen.strokeStyle = ink;
    if (filled) return pen.fillRect(left, y, width, BAR);
    pen.fillStyle = colour("card");
    pen.fillRect(left, y, width, BAR);
    pen.lineWidth = 1.5;
    pen.strokeRect(left + 0.75, y + 0.75, Math.max(0.5, width - 1.5), BAR - 1.5);
    pen.lineWidth = 1;
  };
  lane.truth.forEach(event => bar(event, top + 20, colour(event.hit ? "win" : "miss"), event.hit));
  lane.found.forEach(event => bar(event, top + 32, colour(event.hit ? "win" : "loss"), true));
  pen.textAlign = "left";
  written(pen, DATA.classes[lane.place], 4, top + 11, colour("ink"), colour("card"));
};

const drawScores = (pen, colour, row, top, { from, to, x, wide }) => {
  // the highest score of each pixel, as an area, and the threshold
  const { times, hundredths } = recording.scores, count = times.length / 2, floor = top + LANE - 3, high = LANE - 8;
  const tops = new Float32Array(Math.ceil(wide) + 1);
  for (let i = 0; i < count; i++) {
    if (times[2 * i + 1] < from || times[2 * i] > to) continue;
    const left = Math.max(0, Math.floor(x(times[2 * i]))), right = Math.min(wide, Math.ceil(x(times[2 * i + 1])));
    for (let pixel = left; pixel < Math.max(right, left + 1); pixel++) {
      tops[pixel] = Math.max(tops[pixel], hundredths[row * count + i]);
    }
  }
  pen.fillStyle = colour("scores");
  tops.forEach((value, pixel) => { if (value) pen.fillRect(pixel, floor - value / 100 * high, 1, value / 100 * high); });
  if (threshold === null) return;
  pen.strokeStyle = colour("soft");
  pen.setLineDash([4, 3]);
  pen.beginPath();
  pen.moveTo(0, floor - threshold / 100 * high);
  pen.lineTo(wide, floor - threshold / 100 * high);
  pen.stroke();
  pen.setLineDash([]);
};

const drawOverview = () => {
  const wide = scroller.clientWidth, pen = fitted(overview, wide, 26), colour = colours();
  const x = time => time / recording.seconds * wide;
  const row = (events, y, ink) => {
    pen.fillStyle = ink;
    events.forEach(event => pen.fillRect(x(event.start), y, Math.max(1.5, x(event.end) - x(event.start)), 6));
  };
  const all = lanes(), truth = all.flatMap(lane => lane.truth), found = all.flatMap(lane => lane.found);
  row(truth.filter(event => event.hit), 2, colour("win"));
  row(truth.filter(event => !event.hit), 10, colour("miss"));
  row(found.filter(event => !event.hit), 18, colour("loss"));
  pen.strokeStyle = colour("ink");
  const left = x(scroller.scrollLeft / scale), width = x(scroller.clientWidth / scale);
  pen.strokeRect(left + 0.5, 0.5, Math.max(4, Math.min(wide - left, width) - 1), 25);
};

// ---- moving about ----

const closest = () => Math.max(CLOSEST, widest());
const widest = () => scroller.clientWidth / recording.seconds;  // pixels of a second where all of it is seen
const zoom = (factor, middle = scroller.clientWidth / 2) => {
  const time = (scroller.scrollLeft + middle) / scale;
  scale = Math.min(closest(), Math.max(widest(), scale * factor));
  sheet.style.width = recording.seconds * scale + "px";
  scroller.scrollLeft = time * scale - middle;
  redraw();
};
const show = time => { scroller.scrollLeft = time * scale - scroller.clientWidth / 2; redraw(); };
const tell = event => {
  const score = event.score === undefined || event.score === null ? "" : `, score ${event.score.toFixed(2)}`;
  const name = DATA.classes[event.place];
  const times = `${clock(recording.start + event.start)} to ${clock(recording.start + event.end)}`;
  said.textContent = `${name}, ${times}${score}: ${event.what}`;
};
const events = () => lanes().flatMap(lane => [
  ...lane.truth.map(event => ({ ...event, place: lane.place, what: event.hit ? "true, and detected" : "missed", row: 0 })),
  ...lane.found.map(event => ({ ...event, place: lane.place, what: event.hit ? "detected, a hit" : "a false alarm", row: 1 })),
]);
const step = way => {
  // from the last one, if it is in sight, else from the edge of what is
  const [left, right] = [scroller.scrollLeft / scale, (scroller.scrollLeft + scroller.clientWidth) / scale];
  const from = pointed !== null && left <= pointed && pointed <= right ? pointed : way > 0 ? left - 1 : right;
  const wrong = events().filter(event => !event.hit && (event.start - from) * way > NEAR);
  if (!wrong.length) { said.textContent = `No mistake ${way > 0 ? "after" : "before"} this.`; return; }
  const next = wrong.reduce((a, b) => (b.start - a.start) * way < 0 ? b : a);
  show((next.start + next.end) / 2);
  pointed = next.start;
  if (audio.src) audio.currentTime = Math.max(0, next.start - 0.5);
  tell(next);
};
const under = pointer => {
  const area = canvas.getBoundingClientRect(), y = pointer.clientY - area.top - picture - AXIS;
  const time = (pointer.clientX - area.left + scroller.scrollLeft) / scale, lane = lanes()[Math.floor(y / LANE)];
  if (y < 0 || !lane) return { time };
  const slack = 3 / scale;
  const hit = events().filter(event => event.place === lane.place && event.start - slack <= time && time <= event.end + slack);
  const row = y % LANE < 31 ? 0 : 1;
  return { time, event: hit.find(event => event.row === row) || hit[0] };
};

scroller.addEventListener("scroll", () => { redraw(); });
canvas.addEventListener("mousemove", pointer => {
  const { event } = under(pointer);
  if (event) tell(event);
});
canvas.addEventListener("click", pointer => {
  const { time, event } = under(pointer);
  pointed = time;
  if (event) tell(event);
  if (audio.src) {
    audio.preload = "auto";
    audio.currentTime = Math.max(0, event ? event.start - 0.2 : time);
    audio.play().catch(() => {});
  }
  redraw();
});
canvas.addEventListener("wheel", wheel => {
  if (!wheel.ctrlKey && !wheel.metaKey) return;  // else the wheel scrolls
  wheel.preventDefault();
  zoom(Math.exp(-wheel.deltaY / 300), wheel.clientX - canvas.getBoundingClientRect().left);
}, { passive: false });
overview.addEventListener("click", pointer => {
  const area = overview.getBoundingClientRect();
  show((pointer.clientX - area.left) / area.width * recording.seconds);
});
scroller.addEventListener("keydown", key => {
  const keys = {
    "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), n: () => step(1), p: () => step(-1),
    " ": () => { if (audio.src) audio.paused ? audio.play() : audio.pause(); },
  };
  if (!keys[key.key] || key.ctrlKey || key.metaKey) return;
  key.preventDefault();
  keys[key.key]();
});
const buttons = { in: () => zoom(2), out: () => zoom(0.5), all: () => zoom(0), next: () => step(1), previous: () => step(-1) };
for (const [name, act] of Object.entries(buttons)) part(name).addEventListener("click", act);
const follow = () => {
  if (audio.paused) return redraw();
  const place = audio.currentTime * scale - scroller.scrollLeft;
  if (place > scroller.clientWidth * 0.95 || place < 0) scroller.scrollLeft = audio.currentTime * scale - 40;
  redraw();
  requestAnimationFrame(follow);
};
audio.addEventListener("play", follow);
audio.addEventListener("pause", redraw);
audio.addEventListener("seeked", redraw);
audio.addEventListener("error", () => { if (audio.src) said.textContent = "The sound of this recording is not beside the page."; });
new ResizeObserver(() => zoom(1)).observe(scroller);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// ---- what one chooses ----

slider?.addEventListener("input", async () => {
  threshold = Number(slider.value);
  part("value").textContent = (threshold / 100).toFixed(2);
  await loadScores(recording);
  judge();
  redraw();
});
part("given")?.addEventListener("click", () => {
  threshold = null;
  part("value").textContent = "as given";
  judge();
  redraw();
});
rule.addEventListener("change", () => { judge(); redraw(); });
filter.addEventListener("change", () => { count(); redraw(); });
const choose = async () => {
  const here = recording = DATA.recordings[Number(picker.value)];
  audio.pause();
  audio.hidden = !here.audio;
  if (here.audio) audio.src = here.audio; else audio.removeAttribute("src");
  tiles = here.tiles.map(([source, start, end]) => {
    const image = new Image();
    image.onload = redraw;
    return { start, end, image, load: () => { if (!image.src) image.src = source; } };
  });
  picture = tiles.length ? PICTURE : 0;
  const every = new Option("all classes", "");
  filter.replaceChildren(every, ...here.lanes.map(lane => new Option(DATA.classes[lane.place], lane.place)));
  said.textContent = here.note;
  pointed = null;
  await loadScores(here);
  if (here !== recording) return;
  judge();
  scale = Math.max(widest(), Math.min(CLOSEST, scroller.clientWidth / 60));  // a minute at first
  zoom(1);
  scroller.scrollLeft = 0;
  const wrong = events().filter(event => !event.hit);
  if (wrong.length) show(wrong.reduce((a, b) => b.start < a.start ? b : a).start);
};
picker.addEventListener("change", choose);
choose();
})();
