// The page: a file or a recording goes to the server, and what the model says is shown.
import { Recording, outline } from "./audio.js";
import { element, render, tableOf } from "./card.js";
import { clock, color, course, number, percent, plain, plane, scaleOf, track } from "./figures.js";

const UNSURE = "unsure", POINTS = 100, MOST_ROWS = 500;
const part = (id) => document.getElementById(id);
const state = { model: null, file: null, whole: null, windows: [], wave: null, seconds: 0, time: 0, recording: null, starting: false };
let asking = new AbortController(), showNow = () => {}, figure = null;

// ---------------------------------------------------------------- the server

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is it still running?");
  }
  const tree = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(tree.error ?? `The server has answered ${answer.status}.`);
  return tree;
}

function predict(file, query, signal) {
  const words = new URLSearchParams({ ...query, name: file.name });
  return ask(`predict?${words}`, { method: "POST", body: file, headers: { "content-type": "application/octet-stream" }, signal });
}

async function begin() {
  part("server").textContent = location.host;
  state.model = await ask("model");
  const { model } = state;
  document.title = `Speech emotion: ${model.name}`;
  part("model-name").textContent = model.name;
  part("model-outputs").textContent = [...model.classes, ...model.dimensions].join(", ");
  part("takes").textContent = `wav, flac, mp3, ogg, aiff and more, up to ${plain(model.limits.bytes / 1e6)} MB and ${span(model.limits.seconds)}.`;
  part("notes").textContent = [...model.notes.map((note) => `${note}.`), `Digest ${model.digest}, sejax ${model.sejax}.`].join(" ");
  part("card").replaceChildren(...(model.card ? render(model.card) : [element("p", "This model has no card.")]));
  const { ready } = await ask("health");
  if (!ready) say("The model is still warming up: the first answer takes longer.");
}

const span = (seconds) => (seconds >= 120 ? `${plain(seconds / 60)} minutes` : `${plain(seconds)} s`);

// ---------------------------------------------------------------- what is said

/** Shows a sentence; the result, which is seen below, is only spoken. */
function say(sentence, { spoken = false } = {}) {
  part("status").textContent = sentence;
  part("status").classList.toggle("hidden", spoken || !sentence);
}

function complain(sentence) {
  part("alert").textContent = sentence;
  part("alert").hidden = !sentence;
  if (sentence) say("");
}

// ---------------------------------------------------------------- a file

async function take(file) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  complain("");
  part("results").hidden = true;
  if (!state.model) return complain("The server does not answer: is it still running?");
  if (file.size > state.model.limits.bytes) {
    return complain(`${file.name} has ${plain(file.size / 1e6)} MB, expected ${plain(state.model.limits.bytes / 1e6)} MB or less.`);
  }
  say(`Predicting ${file.name} …`);
  const drawn = outline(file);
  try {
    const { records } = await predict(file, {}, signal);
    const wave = await drawn;
    if (signal.aborted) return;
    Object.assign(state, { file, whole: records[0], windows: [], wave: wave?.peaks, seconds: wave?.seconds ?? 0, time: 0 });
    part("window").value = state.seconds && state.seconds < 5 ? "1" : "3";
    showWhole();
    await overTime(signal);
    if (signal.aborted) return;
    say(summary(), { spoken: true });
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
  }
}

async function overTime(signal) {
  const window = Number(part("window").value);
  const points = Math.round((20 * state.seconds) / POINTS) / 20;  // seconds between them, in steps of 0.05
  const every = state.seconds ? Math.min(window, Math.max(state.model.limits.least_every, points)) : 0.5;
  const { records } = await predict(state.file, { every, window }, signal);
  if (signal.aborted) return;
  state.windows = records.filter((row) => !row.error);
  const broken = records.find((row) => row.error);
  if (broken) complain(broken.error);
  state.seconds ||= state.windows.at(-1)?.end ?? 0;
  showPlane();
  showCourse();
  showTable();
}

function summary() {
  const { model, whole } = state;
  const said = model.classes.length ? [`${labelOf(whole)}, confidence ${percent(whole.confidence)}`] : [];
  return [...said, ...model.dimensions.map((name) => `${name} ${number(whole[name])}`)].join("; ");
}

// ---------------------------------------------------------------- the whole

const threshold = () => Number(part("threshold").value) / 100;

function best(row) {
  return state.model.classes.reduce((a, b) => (row[`prob_${b}`] > row[`prob_${a}`] ? b : a));
}

function labelOf(row) {
  if (row.confidence === null) return row.note ?? "";
  return row.confidence < threshold() ? UNSURE : best(row);
}

function showWhole() {
  const { model, whole, file } = state;
  part("audio-name").textContent = file.name;
  URL.revokeObjectURL(part("player").src);
  part("player").src = URL.createObjectURL(file);
  part("note").textContent = whole.note ?? "";
  part("note").hidden = !whole.note;
  part("classes").hidden = !model.classes.length;
  part("dimensions").hidden = !model.dimensions.length;
  if (model.classes.length) showClasses();
  if (model.dimensions.length) showPlane();
  part("table").replaceChildren();
  part("course").replaceChildren();
  part("readout").textContent = "";
  part("results").hidden = false;
  document.body.classList.add("answered");
}

function showClasses() {
  const { model, whole } = state;
  const label = labelOf(whole);
  part("label").textContent = label;
  part("label").className = label === UNSURE ? UNSURE : "";
  const leaning = label === UNSURE ? `leans to ${best(whole)}, ` : "";
  const spread = Number.isFinite(whole.spread_label) ? `, ± ${number(100 * whole.spread_label)} points over its runs` : "";
  part("confidence").textContent = `${leaning}confidence ${percent(whole.confidence)}${spread}`;
  part("bars").replaceChildren(...model.classes.map((name, place) => {
    const share = whole[`prob_${name}`], bar = element("span", "", { class: "bar", "aria-hidden": "true" }), fill = element("span");
    fill.style.width = `${100 * share}%`;
    fill.style.background = color(place);
    bar.append(fill);
    const item = element("li");
    item.append(element("span", name, { class: "name" }), bar, element("span", percent(share), { class: "value" }));
    return item;
  }));
  part("threshold-value").textContent = percent(threshold());
}

function showPlane() {
  const { model, whole, windows } = state;
  if (!model.dimensions.length) return;
  const scale = scaleOf(model, [whole, ...windows]);
  const both = ["valence", "arousal"].every((name) => model.dimensions.includes(name) && whole[name] !== null);
  part("plane").replaceChildren();
  showNow = () => {};
  if (both) {
    const drawn = plane(whole, windows, scale);
    part("plane").append(drawn.svg);
    showNow = drawn.show;
  }
  part("tracks").replaceChildren(...model.dimensions.filter((name) => whole[name] !== null).map((name) => {
    const item = element("li");
    item.append(element("span", name, { class: "name" }), track(whole, name, scale), element("span", number(whole[name]), { class: "value" }));
    return item;
  }));
  const meanings = ["the dot is the estimate"];
  if (model.spread) meanings.push("the shaded part is the deviation over the model's runs");
  if (model.intervals) meanings.push("the dashed part is the interval");
  if (both && windows.length > 1) meanings.push("the small dots are windows over time");
  const ends = model.scale ? `Scale from ${model.scale.map(plain).join(" to ")}` : "The model does not say its scale";
  part("dimensions-aid").textContent = `${ends}; ${meanings.join(", ")}.`;
}

// ---------------------------------------------------------------- over time

function showCourse() {
  const { model, windows, wave, seconds } = state;
  const place = part("course");
  if (!windows.length || !(seconds > 0) || part("results").hidden) return;
  figure = course(model, windows, wave, seconds, Math.max(280, place.clientWidth), scaleOf(model, windows));
  place.replaceChildren(figure.svg);
  place.setAttribute("aria-valuemax", seconds.toFixed(1));
  readAt(state.time);
}

function nearest(time) {
  return state.windows.reduce((a, b) => (Math.abs((b.start + b.end) / 2 - time) < Math.abs((a.start + a.end) / 2 - time) ? b : a));
}

function readAt(time) {
  if (!figure || !state.windows.length) return;
  state.time = Math.max(0, Math.min(state.seconds, time));
  const row = nearest(state.time);
  figure.show(state.time, row);
  showNow(row);
  const words = [`heard from ${clock(row.start)} to ${clock(row.end)}`];
  if (row.note) words.push(row.note);
  if (row.confidence !== null && row.confidence !== undefined) words.unshift(`${labelOf(row)} ${percent(row.confidence)}`);
  words.push(...state.model.dimensions.filter((name) => row[name] !== null).map((name) => `${name} ${number(row[name])}`));
  const place = part("course");
  place.setAttribute("aria-valuenow", state.time.toFixed(1));
  place.setAttribute("aria-valuetext", `${clock(state.time)}: ${words.join(", ")}`);
  part("readout").replaceChildren(element("b", clock(state.time)), ` ${words.join(", ")}`);
}

function onCourseKey(event) {
  const step = Math.max(0.1, state.seconds / POINTS);
  const moves = { ArrowRight: step, ArrowUp: step, ArrowLeft: -step, ArrowDown: -step, PageUp: 10 * step, PageDown: -10 * step, Home: -Infinity, End: Infinity };
  if (!(event.key in moves)) return;
  event.preventDefault();
  moveTo(state.time + moves[event.key]);
}

function moveTo(time) {
  readAt(time);
  if (Number.isFinite(part("player").duration)) part("player").currentTime = Math.min(state.time, part("player").duration);
}

// ---------------------------------------------------------------- the table

const allRows = () => [state.whole, ...state.windows];

function cells(row) {
  return state.model.columns.map((name) => {
    const value = name === "label" && row.label ? labelOf(row) : row[name];
    if (value === null || value === undefined) return "";
    if (typeof value !== "number") return String(value);
    return name === "start" || name === "end" ? String(Number(value.toFixed(3))) : number(value);
  });
}

function showTable() {
  const rows = allRows().slice(0, MOST_ROWS);
  const left = Math.max(0, allRows().length - rows.length);
  const { columns } = state.model, all = rows.map(cells);
  const used = [...columns.keys()].filter((place) => columns[place] !== "file" && all.some((own) => own[place] !== ""));
  const table = tableOf(used.map((place) => columns[place]), all.map((own) => used.map((place) => own[place])), "What the model says");
  part("table").replaceChildren(table.firstChild);
  if (left) part("table").append(element("p", `${left} more rows are in the files.`, { class: "aid" }));
}

function download(kind, content, type) {
  const link = element("a", "", { download: `${state.file.name}.${kind}` });
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

function csv() {
  const { columns } = state.model;
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = allRows().map((row) => columns.map((name) => quoted(name === "label" && row.label ? labelOf(row) : row[name])).join(","));
  return `${[columns.join(","), ...lines].join("\r\n")}\r\n`;
}

const json = () => `${JSON.stringify({ model: state.model.digest, records: allRows().map((row) => ("label" in row ? { ...row, label: row.label && labelOf(row) } : row)) }, null, 1)}\n`;

// ---------------------------------------------------------------- recording

async function toggleRecording() {
  if (state.recording) return stopRecording();
  if (state.starting || !state.model) return;
  state.starting = true;
  complain("");
  part("player").pause();
  try {
    state.recording = await Recording.begin(heard);
  } catch (error) {
    return complain(error.message);
  } finally {
    state.starting = false;
  }
  recordingShown(true);
  say("Recording: press the button again to stop.");
}

function heard(seconds, level) {
  const whole = Math.floor(seconds), { limits } = state.model;
  part("clock").textContent = `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  part("level").style.width = `${Math.min(100, 100 * Math.sqrt(level))}%`;
  const { recording } = state;
  if (recording && (seconds + 1 > limits.seconds || recording.bytes + 2e5 > limits.bytes)) stopRecording();
}

function stopRecording() {
  const { recording } = state;
  state.recording = null;
  recordingShown(false);
  const { seconds } = recording, file = recording.stop();
  if (seconds) return take(file);
  say("");
  return complain("The microphone has given nothing yet: record for a little longer.");
}

function recordingShown(on) {
  part("record").setAttribute("aria-pressed", String(on));
  part("record-word").textContent = on ? "Stop" : "Record";
  part("recording").hidden = !on;
  part("choose").disabled = on;
}

// ---------------------------------------------------------------- events

part("choose").addEventListener("click", () => part("file").click());
part("file").addEventListener("change", () => {
  const [file] = part("file").files;
  if (file) take(file);
  part("file").value = "";
});
part("record").addEventListener("click", toggleRecording);
part("threshold").addEventListener("input", () => { showClasses(); showTable(); readAt(state.time); });
part("window").addEventListener("change", async () => {
  asking.abort();
  asking = new AbortController();
  complain("");
  say("Predicting …");
  try {
    await overTime(asking.signal);
    say(summary(), { spoken: true });
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
  }
});
part("csv").addEventListener("click", () => download("csv", csv(), "text/csv"));
part("json").addEventListener("click", () => download("json", json(), "application/json"));
part("course").addEventListener("keydown", onCourseKey);
part("course").addEventListener("pointermove", (event) => figure && readAt(figure.timeAt(event.clientX - part("course").getBoundingClientRect().left)));
part("course").addEventListener("click", (event) => figure && moveTo(figure.timeAt(event.clientX - part("course").getBoundingClientRect().left)));
part("player").addEventListener("timeupdate", () => { if (!part("player").paused) readAt(part("player").currentTime); });
addEventListener("resize", showCourse);
addEventListener("dragover", (event) => { event.preventDefault(); part("drop").classList.add("over"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) part("drop").classList.remove("over"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  part("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file && !state.recording) take(file);
});

begin().catch((error) => complain(error.message));
