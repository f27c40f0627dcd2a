"use strict";
// Sorting and filtering of the table of runs; details of the run under the pointer in figures.

const table = document.getElementById("runs");
const rows = [...table.tBodies[0].rows];

for (const button of table.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), column = head.cellIndex;
    const up = head.getAttribute("aria-sort") !== "ascending";
    const key = row => row.cells[column].dataset.value;
    const number = row => key(row) === "" ? Infinity : Number(key(row));
    const text = head.dataset.kind === "text";
    rows.sort((a, b) => {
      const order = text ? key(a).localeCompare(key(b)) : number(a) - number(b);
      return (up ? 1 : -1) * (order || 0);
    });
    for (const other of head.parentElement.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    table.tBodies[0].append(...rows);
  });
}

// A word with "=" matches a column or setting with that exact value; any other matches any text.
const titles = [...table.tHead.rows[0].cells].map(cell => cell.textContent.toLowerCase());
function settings(row) {
  const cells = [...row.cells].map((cell, i) => titles[i] + "=" + cell.dataset.value);
  const config = [...row.querySelectorAll("dl div")]
    .map(pair => pair.children[0].textContent + "=" + pair.children[1].textContent);
  return [...cells, ...config].map(text => text.toLowerCase());
}
const filter = document.getElementById("filter"), count = document.getElementById("count");
filter.addEventListener("input", () => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(word => word);
  for (const row of rows) {
    const all = settings(row);
    row.hidden = !words.every(word => word.includes("=")
      ? all.some(text => text === word || text.endsWith("." + word))
      : all.some(text => text.includes(word)));
  }
  const shown = rows.filter(row => !row.hidden).length;
  count.textContent = words.length ? ` ${shown} of ${rows.length} runs` : "";
});

const runs = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
let now = null;

function list(pairs) {
  const box = document.createElement("dl");
  for (const [name, value] of Object.entries(pairs)) {
    if (value === null) continue;
    const pair = document.createElement("div");
    for (const [tag, text] of [["dt", name], ["dd", value]]) {
      pair.append(Object.assign(document.createElement(tag), { textContent: text }));
    }
    box.append(pair);
  }
  return box;
}

function show(dot) {
  hide();
  now = dot;
  dot.classList.add("now");
  const run = runs[Number(dot.dataset.run)];
  const name = Object.assign(document.createElement("strong"), { textContent: run.run });
  tip.replaceChildren(name, ` (${run.sweep})`, list(run.values), list(run.config));
  tip.hidden = false;
  const box = dot.getBoundingClientRect();
  const page = document.documentElement;
  const left = Math.min(box.right + 10, page.clientWidth - tip.offsetWidth - 8);
  const below = box.bottom + 10;
  const above = box.top - tip.offsetHeight - 10;
  const top = below + tip.offsetHeight > page.clientHeight && above > 0 ? above : below;
  tip.style.left = Math.max(8, left) + window.scrollX + "px";
  tip.style.top = top + window.scrollY + "px";
}

function hide() {
  if (now) now.classList.remove("now");
  now = null;
  tip.hidden = true;
}

for (const figure of document.querySelectorAll("figure svg")) {
  const dots = [...figure.querySelectorAll(".dot")];
  for (const dot of dots) {
    dot.addEventListener("pointerenter", () => show(dot));
    dot.addEventListener("click", () => show(dot));
    dot.addEventListener("pointerleave", hide);
  }
  dots.sort((a, b) => a.getBoundingClientRect().left - b.getBoundingClientRect().left);
  const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  figure.addEventListener("keydown", event => {
    if (event.key === "Escape") hide();
    if (!(event.key in steps) || !dots.length) return;
    event.preventDefault();
    const from = dots.indexOf(now), step = steps[event.key];
    const start = step > 0 ? -1 : dots.length;
    show(dots[((from < 0 ? start : from) + step + dots.length) % dots.length]);
  });
  figure.addEventListener("blur", hide);
}

// While the sweep is being trained, `ligr report --watch` writes the page again.
const seconds = Number(document.body.dataset.reload);
if (seconds) setTimeout(() => location.reload(), 1000 * seconds);
