"use strict";
// The transfer view: encoders by downstream tasks. Figures come from the JSON in the page;
// its table is made when it is looked at. No text is ever turned into markup.
//   tables: one for each suite (or, of what is in none, pretraining dataset), protocol and battery.
//   remember(): notes in the address what is shown.
function transferView(tables, remember) {
  const $ = (id) => document.getElementById(id);
  const from = $("from"), kind = $("kind"), labels = $("labels"), body = $("transfer-table");
  from.replaceChildren(...tables.map((table) =>
    make("option", { value: table.title, textContent: `${table.title} (${table.lines.length})` })));
  const share = (value) => value === null ? "-" : (100 * value).toFixed(1);
  const number = (...content) => make("td", { className: "number" }, ...content);
  const quiet = (textContent) => make("span", { className: "quiet", textContent });

  const doubt = (mark) => mark && kind.value === "robust" ? [make("span", { className: "doubt", textContent: mark })] : [];

  function cell(found) {
    if (found === null) return number("-");
    const [value, low, high] = found[kind.value];
    return number(make("span", { className: "figure", textContent: share(value) }), ...doubt(found.mark),
      quiet(`[${share(low)}, ${share(high)}]`));
  }

  function total(line, which) {
    const value = line[`${kind.value}_${which}`];
    return number(make("span", { className: "figure", textContent: share(value) }),
      ...(value === null ? [] : doubt(which === "worst" ? line.worst_mark : line.mark)));
  }

  function show() {
    const table = tables[Math.max(0, from.selectedIndex)];
    const lines = table.lines.filter((line) => !labels.value || line.labels === (labels.value === "yes"));
    const robust = kind.value === "robust"; // a broken evaluation stands behind those that are not
    const by = (line) => robust && line.judgement === "broken" && line.robust_mean !== null
      ? line.robust_mean - 1.5 : line[`${kind.value}_mean`] ?? -2;
    lines.sort((a, b) => by(b) - by(a)); // stable: as the records have them
    const head = (text, ...notes) => make("th", { scope: "col" }, text, ...notes.filter(Boolean).map(quiet));
    const heads = [head("encoder"), head("mean"), head("worst"),
      ...table.tasks.map((task, at) => {
        const [name, ...rest] = task.split(", ");
        return head(`${name} `, rest.join(", "), table.counted[at] ? "" : "not in the mean");
      })];
    const rows = lines.map((line) => make("tr", {},
      make("th", { scope: "row" }, make("span", { className: "name", textContent: line.encoder }), quiet(line.method)),
      ...["mean", "worst"].map((which) => total(line, which)),
      ...line.cells.map(cell)));
    body.replaceChildren(make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...rows));
    const tasks = table.of ? `${table.tasks.length} of the ${table.of} tasks of the suite` : `${table.tasks.length} tasks`;
    $("transfer-count").textContent = `${lines.length} of ${table.lines.length} encoders, ${tasks}`;
  }

  for (const select of [from, kind, labels]) {
    select.addEventListener("change", () => { show(); remember(); });
  }
  return {
    show,
    hide: () => body.replaceChildren(),
    save: (state) => {
      if (from.selectedIndex > 0) state.set("from", from.value);
      if (kind.value !== "robust") state.set("kind", kind.value);
      if (labels.value) state.set("pretrained", labels.value);
    },
    recall: (state) => {
      const named = (of) => tables.findIndex((table) => of(table) === state.get("from"));
      // Links of before name no suite, or the dataset alone.
      const names = [(table) => table.title, (table) => `${table.pretraining}: ${table.kind}`, (table) => table.pretraining];
      from.selectedIndex = Math.max(0, names.map(named).find((at) => at >= 0) ?? 0);
      kind.value = state.get("kind") === "clean" ? "clean" : "robust";
      labels.value = ["yes", "no"].includes(state.get("pretrained")) ? state.get("pretrained") : "";
    },
  };
}
