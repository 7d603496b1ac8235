"use strict";
// Everything from a record is set as text, never as markup.
const at = (id) => document.getElementById(id);
let items = [];
let current = -1;
let displayed = -1; // what is on the screen: differs from current while a record is on its way

function make(tag, text = "", className = "") {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = className;
  return node;
}

async function ask(path, options) {
  const reply = await fetch(path, options);
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error || reply.statusText);
  at("problem").hidden = true;
  return value;
}

function complain(error) {
  at("problem").textContent = error.message;
  at("problem").hidden = false;
}

async function load() {
  const query = new URLSearchParams({ task: at("task").value, state: at("state").value });
  const found = await ask(`/api/items?${query}`);
  if (!at("task").options.length) {
    at("task").append(new Option("all", ""));
    for (const [task, count] of Object.entries(found.tasks)) at("task").append(new Option(`${task} (${count})`, task));
  }
  items = found.items;
  count(found.counts);
  at("list").replaceChildren(...items.map((item, place) => {
    const entry = make("li");
    const button = make("button", item.question, item.verdict);
    button.append(make("small", `${item.task} - ${item.id}`));
    button.addEventListener("click", () => show(place).catch(complain));
    entry.append(button);
    return entry;
  }));
  current = displayed = -1;
  at("main").hidden = !items.length;
  if (items.length) await show(0);
}

function count(counts) {
  at("counts").textContent = `${items.length} shown, ${counts.accept} accepted, ${counts.reject} rejected`;
}

async function show(place) {
  if (place < 0 || place >= items.length) return;
  current = place;
  delete at("main").dataset.number;
  const item = await ask(`/api/items/${items[place].number}`);
  if (current !== place) return;
  const record = item.record;
  at("name").textContent = record.id;
  at("about").textContent =
    [item.file, record.task || "qa", record.split || "train", record.source, record.licence].filter(Boolean).join(" - ");
  at("clips").replaceChildren(...(record.audio || []).map((name, number) => {
    const figure = make("figure");
    const image = new Image();
    image.alt = `waveform and spectrogram of ${name}`;
    image.src = `/pictures/${item.number}/${number}`;
    const player = make("audio");
    player.controls = true;
    player.preload = "metadata";
    player.src = `/clips/${item.number}/${number}`;
    for (const node of [image, player]) {
      node.addEventListener("error", () => complain(new Error(`${name}: cannot be shown or played`)));
    }
    figure.append(image, player, make("figcaption", name));
    return figure;
  }));
  const turns = record.turns.map((turn) => {
    const box = make("div", "", `turn ${turn.role}`);
    box.append(make("b", { user: "Question", assistant: "Answer", system: "System" }[turn.role]), turn.content);
    return box;
  });
  if (record.choices) {
    const answer = record.turns[record.turns.length - 1].content;
    const choices = make("p", "", "choices");
    choices.append(...record.choices.map((choice) => make("span", choice, choice === answer ? "right" : "")));
    turns.push(choices);
  }
  at("turns").replaceChildren(...turns);
  at("provenance").textContent = JSON.stringify(record.provenance || {}, null, 1);
  at("meta").textContent = JSON.stringify(record.meta || {}, null, 1);
  at("note").value = item.note;
  mark(item.verdict);
}

function mark(verdict) {
  displayed = current;
  items[current].verdict = verdict;
  const buttons = at("list").querySelectorAll("button");
  buttons.forEach((button, place) => button.setAttribute("aria-current", String(place === current)));
  buttons[current].className = verdict;
  buttons[current].scrollIntoView({ block: "nearest" });
  for (const name of ["accept", "reject"]) at(name).classList.toggle("chosen", verdict === name);
  at("main").dataset.number = items[current].number;
}

async function decide(verdict) {
  if (current < 0 || displayed !== current) return;
  const place = current;
  const answer = await ask(`/api/items/${items[place].number}/review`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ verdict, note: at("note").value }),
  });
  count(answer.counts);
  if (place !== current) return;
  mark(answer.verdict);
  if (verdict !== "clear" && place + 1 < items.length) await show(place + 1);
}

function play() {
  const player = document.querySelector("audio");
  if (player) player.paused ? player.play().catch(complain) : player.pause();
}

const keys = {
  a: () => decide("accept"),
  r: () => decide("reject"),
  u: () => decide("clear"),
  j: () => show(current + 1),
  k: () => show(current - 1),
  n: () => at("note").focus(),
  " ": play,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target === at("note")) {
    if (event.key === "Escape" || event.key === "Enter") at("note").blur();
    return;
  }
  if (["SELECT", "AUDIO", "SUMMARY"].includes(event.target.tagName)) return;
  if (event.key === " " && event.target.tagName === "BUTTON") return;
  const action = keys[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  Promise.resolve(action()).catch(complain);
});
for (const verdict of ["accept", "reject", "clear"]) {
  at(verdict).addEventListener("click", () => decide(verdict).catch(complain));
}
for (const id of ["task", "state"]) at(id).addEventListener("change", () => load().catch(complain));
load().catch(complain);
