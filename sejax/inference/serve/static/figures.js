// The figures, as SVG. Each has a text that says the same.

const SVG = "http://www.w3.org/2000/svg";
const PLANE = 330, LEFT = 34, TOP = 14, SIDE = 270;
const WAVE = 64, LANE = 34, GAP = 8, AXIS = 22;

export const number = (x) => (x === null || x === undefined ? "" : Number(x).toPrecision(3));
export const plain = (x) => String(Number(Number(x).toPrecision(3)));
export const percent = (x) => `${Math.round(100 * x)} %`;
export const clock = (s) => `${s.toFixed(1)} s`;
export const color = (place) => `var(--c${place % 8})`;

function draw(name, attributes = {}, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text;
  return made;
}

/** Returns the ends of the scale of the dimensions; where the model does not say them, 0 and 1, or those of the rows. */
export function scaleOf(model, rows) {
  if (model.scale) return model.scale;
  const values = rows.flatMap((row) => model.dimensions.map((name) => row[name])).filter(Number.isFinite);
  return [Math.min(0, ...values), Math.max(1, ...values)];
}

/** Returns a dimension of a row in words: value, deviation, interval. */
export function inWords(row, name) {
  if (row[name] === null) return `${name}: none`;
  const spread = Number.isFinite(row[`spread_${name}`]) ? `, deviation ${number(row[`spread_${name}`])}` : "";
  const low = row[`${name}_low`], high = row[`${name}_high`];
  const interval = Number.isFinite(low) && Number.isFinite(high) ? `, interval ${number(low)} to ${number(high)}` : "";
  return `${name} ${number(row[name])}${spread}${interval}`;
}

/** The valence-arousal plane: point, spread as an ellipse, interval as a box, windows as small dots. */
export function plane(row, windows, [low, high]) {
  const inside = (value) => Math.max(low, Math.min(high, value));
  const x = (value) => LEFT + (SIDE * (inside(value) - low)) / (high - low);
  const y = (value) => TOP + SIDE - (SIDE * (inside(value) - low)) / (high - low);
  const label = `Plane of valence and arousal from ${plain(low)} to ${plain(high)}: `;
  const svg = draw("svg", { viewBox: `0 0 ${PLANE} ${PLANE - 6}`, role: "img",
    "aria-label": label + [inWords(row, "valence"), inWords(row, "arousal")].join("; ") });
  const middle = (low + high) / 2, right = LEFT + SIDE, bottom = TOP + SIDE;
  svg.append(
    draw("rect", { class: "frame", x: LEFT, y: TOP, width: SIDE, height: SIDE, rx: 6 }),
    draw("path", { class: "axis", d: `M${x(middle)} ${TOP}V${bottom}M${LEFT} ${y(middle)}H${right}` }),
    draw("text", { x: LEFT, y: bottom + 17 }, plain(low)),
    draw("text", { x: right, y: bottom + 17, "text-anchor": "end" }, plain(high)),
    draw("text", { x: x(middle), y: bottom + 17, "text-anchor": "middle", class: "strong" }, "valence"),
    draw("text", { x: LEFT - 6, y: bottom, "text-anchor": "end" }, plain(low)),
    draw("text", { x: LEFT - 6, y: TOP + 10, "text-anchor": "end" }, plain(high)),
    draw("text", { transform: `translate(${LEFT - 12} ${y(middle)}) rotate(-90)`, "text-anchor": "middle", class: "strong" }, "arousal"),
  );
  if (Number.isFinite(row.valence_low) && Number.isFinite(row.arousal_low)) {
    svg.append(draw("rect", { class: "interval", rx: 4, x: x(row.valence_low), y: y(row.arousal_high),
      width: x(row.valence_high) - x(row.valence_low), height: y(row.arousal_low) - y(row.arousal_high) }));
  }
  const heard = windows.filter((own) => Number.isFinite(own.valence) && Number.isFinite(own.arousal));
  svg.append(...heard.map((own) => draw("circle", { class: "trail", cx: x(own.valence), cy: y(own.arousal), r: 2.4 })));
  if (Number.isFinite(row.spread_valence) && Number.isFinite(row.spread_arousal)) {
    const unit = SIDE / (high - low);
    svg.append(draw("ellipse", { class: "spread", cx: x(row.valence), cy: y(row.arousal),
      rx: unit * row.spread_valence, ry: unit * row.spread_arousal }));
  }
  svg.append(draw("circle", { class: "point", cx: x(row.valence), cy: y(row.arousal), r: 5 }));
  const now = draw("circle", { class: "now", r: 6, visibility: "hidden" });
  svg.append(now);
  const show = (own) => {
    const there = own && Number.isFinite(own.valence) && Number.isFinite(own.arousal);
    now.setAttribute("visibility", there ? "visible" : "hidden");
    if (there) { now.setAttribute("cx", x(own.valence)); now.setAttribute("cy", y(own.arousal)); }
  };
  return { svg, show };
}

/** The scale of a dimension: point, spread as a thick line, interval as a dashed one. */
export function track(row, name, [low, high]) {
  const at = (value) => `${(100 * (Math.max(low, Math.min(high, value)) - low)) / (high - low)}%`;
  const svg = draw("svg", { role: "img", "aria-label": `${inWords(row, name)}, on a scale from ${plain(low)} to ${plain(high)}` });
  const line = (kind, from, to) => draw("line", { class: kind, x1: at(from), x2: at(to), y1: 11, y2: 11 });
  svg.append(line("frame", low, high));
  if (Number.isFinite(row[`${name}_low`])) svg.append(line("whisker", row[`${name}_low`], row[`${name}_high`]));
  const spread = row[`spread_${name}`];
  if (Number.isFinite(spread)) svg.append(line("body", row[name] - spread, row[name] + spread));
  svg.append(draw("circle", { class: "point", cx: at(row[name]), cy: 11, r: 5.5 }));
  return svg;
}

/** The course over time: waveform, a lane per class, a lane per dimension, and a cursor that `show` moves. */
export function course(model, windows, wave, seconds, width, scale) {
  const narrow = width < 520, left = narrow ? 76 : 104, right = 4, inner = width - left - right;
  const x = (time) => left + (inner * time) / seconds;
  const lanes = [...model.classes.map((name, place) => ({ name, key: `prob_${name}`, place, range: [0, 1] })),
    ...model.dimensions.map((name, place) => ({ name, key: name, place: 7, range: scale, dimension: place }))];
  const height = WAVE + GAP + lanes.length * (LANE + GAP) + AXIS;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, "aria-hidden": "true" });
  const heard = draw("rect", { class: "heard", y: 0, height: height - AXIS, visibility: "hidden" });
  svg.append(heard);
  if (wave) {
    const loudest = Math.max(0.01, ...wave);
    wave = wave.map((peak) => peak / loudest);
    const top = wave.map((peak, i) => `${(left + (inner * i) / wave.length).toFixed(1)} ${(WAVE / 2 - (WAVE / 2 - 2) * peak - .5).toFixed(1)}`);
    const under = wave.map((peak, i) => `${(left + (inner * i) / wave.length).toFixed(1)} ${(WAVE / 2 + (WAVE / 2 - 2) * peak + .5).toFixed(1)}`);
    svg.append(draw("path", { class: "wave", d: `M${top.join("L")}L${under.reverse().join("L")}Z` }));
  } else {
    svg.append(draw("text", { x: left, y: WAVE / 2 }, "The browser cannot draw this format."));
  }
  lanes.forEach((lane, i) => {
    const bottom = WAVE + GAP + i * (LANE + GAP) + LANE;
    const y = (value) => bottom - (LANE * (Math.max(lane.range[0], Math.min(lane.range[1], value)) - lane.range[0])) / (lane.range[1] - lane.range[0]);
    const name = lane.name.length > 13 ? `${lane.name.slice(0, 12)}…` : lane.name;
    svg.append(draw("text", { x: left - 10, y: bottom - LANE / 2 + 4, "text-anchor": "end" }, name));
    svg.append(draw("path", { class: "axis", d: `M${left} ${bottom}H${width - right}` }));
    for (const piece of pieces(windows, lane.key)) {
      const points = piece.map((row) => [x((row.start + row.end) / 2), y(row[lane.key])]);
      // The first and the last window stand for the ends of the audio.
      if (piece[0] === windows[0]) points.unshift([x(0), points[0][1]]);
      if (piece.at(-1) === windows.at(-1)) points.push([x(seconds), points.at(-1)[1]]);
      const path = points.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L");
      const shade = color(lane.place);
      if (lane.dimension === undefined) {
        svg.append(draw("path", { class: "lane", fill: shade, stroke: "none", d: `M${points[0][0]} ${bottom}L${path}L${points.at(-1)[0]} ${bottom}Z` }));
      } else if (Number.isFinite(piece[0][`${lane.name}_low`])) {
        const edge = (end) => piece.map((row) => `${x((row.start + row.end) / 2).toFixed(1)} ${y(row[`${lane.name}_${end}`]).toFixed(1)}`);
        svg.append(draw("path", { class: "band", fill: shade, d: `M${edge("low").join("L")}L${edge("high").reverse().join("L")}Z` }));
      }
      svg.append(draw("path", { class: "lane", fill: "none", stroke: shade, d: `M${path}` }));
    }
  });
  const step = niceStep(seconds, inner / 70);
  for (let time = 0; time <= seconds + 1e-6; time += step) {
    const last = x(time) > width - 24;
    svg.append(draw("text", { x: last ? width - right : x(time), y: height - 5, "text-anchor": last ? "end" : "middle" }, `${Number(time.toFixed(2))} s`));
  }
  const cursor = draw("line", { class: "cursor", y1: 0, y2: height - AXIS, visibility: "hidden" });
  svg.append(cursor);
  const show = (time, row) => {
    for (const part of [cursor, heard]) part.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", x(time)); cursor.setAttribute("x2", x(time));
    heard.setAttribute("x", x(row.start)); heard.setAttribute("width", Math.max(1, x(Math.min(row.end, seconds)) - x(row.start)));
  };
  return { svg, show, timeAt: (pixel) => Math.max(0, Math.min(seconds, ((pixel - left) / inner) * seconds)) };
}

/** Returns the stretches of windows that have a value: silence has none. */
function pieces(windows, key) {
  const found = [];
  let open = false;
  for (const row of windows) {
    if (Number.isFinite(row[key])) {
      if (!open) found.push([]);
      found.at(-1).push(row);
      open = true;
    } else open = false;
  }
  return found;
}

function niceStep(seconds, most) {
  return [.1, .2, .5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600].find((step) => seconds / step <= most) ?? 7200;
}
