"use strict";
const {levels, columns, clusters, items} = JSON.parse(document.getElementById("data").textContent);
const place = document.getElementById("clusters"), search = document.getElementById("search");
const count = document.getElementById("count"), OPENED = 5;

const of = new Map(clusters.map(cluster => [cluster.code, []]));
for (const item of items) {
  item.codes = item.slice(1, 1 + levels);
  item.cells = [item[0], ...item.slice(1 + levels)];
  item.tuple = item.codes.join(".");
  item.text = item.cells.join(" ").toLowerCase();
  of.get(item.codes[0]).push(item);
}

// 17.203 is a prefix of codes; anything else is part of a word.
function holds(item, word) {
  const prefix = /^\d+(\.\d+)+$/.test(word);
  return prefix ? `${item.tuple}.`.startsWith(`${word}.`) : item.text.includes(word);
}

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function table(some) {
  const made = element("table"), head = element("tr"), body = element("tbody");
  for (const name of ["codes", "item", ...columns]) head.append(element("th", name));
  let before = "";
  for (const item of some) {
    const pair = item.codes.slice(0, 2).join("."), row = element("tr", "", pair === before ? "" : "pair");
    before = pair;
    row.append(element("td", item.tuple, "codes"));
    for (const cell of item.cells) row.append(element("td", cell));
    body.append(row);
  }
  const top = element("thead");
  top.append(head);
  made.append(top, body);
  return made;
}

function show(words) {
  place.replaceChildren();
  let found = 0, shown = 0;
  for (const {code, size, common} of clusters) {
    const here = of.get(code);
    const some = words.length ? here.filter(i => words.every(word => holds(i, word))) : here;
    if (!some.length) continue;
    found += some.length;
    const box = element("details"), line = element("summary"), name = element("span");
    name.append(element("b", code));
    const many = words.length ? `${some.length} of ${size}` : `${size} items`;
    line.append(name, element("span", many), element("span", common.join(" · ")));
    box.append(line);
    // A cluster is drawn when it is first opened: thousands of tables would be slow.
    box.addEventListener("toggle", () => {
      if (!box.open || box.children.length > 1) return;
      const scroll = element("div", "", "scroll");
      scroll.append(table(some));
      box.append(scroll);
      if (some.length === here.length) return;
      const all = element("button", `Show all ${here.length} of this cluster`);
      all.addEventListener("click", () => {
        scroll.replaceChildren(table(here));
        all.remove();
      });
      box.append(all);
    });
    box.open = words.length > 0 && shown < OPENED;
    shown += 1;
    place.append(box);
  }
  count.textContent = words.length ? `items: ${found}, clusters: ${shown}` : "";
}

search.addEventListener("input", () =>
  show(search.value.toLowerCase().split(/\s+/).filter(word => word)));
show([]);
