"use strict";
// Shows the entries of one dataset and threat model: as points, and as rows a page at a
// time. Figures come from the JSON in the page; no text is ever turned into markup.
(() => {
  const PAGE = 100; // rows
  const KNOWN = ["SLF", "SLF-R", "ALF", "AFF"];
  const $ = (id) => document.getElementById(id);
  const words = new Intl.Collator("en", { numeric: true });

  const data = JSON.parse($("data").textContent);
  const table = (columns) => {
    const names = Object.keys(columns);
    const count = names.length ? columns[names[0]].length : 0;
    return Array.from({ length: count }, (_, at) =>
      Object.fromEntries(names.map((name) => [name, columns[name][at]])));
  };
  const told = (row, names) => {
    for (const name of names) row[name] = row[name] === null ? null : data.texts[row[name]];
  };
  const encoders = table(data.encoders);
  for (const e of encoders) {
    told(e, ["description", "arch", "method", "made", "licence", "source", "command", "notes"]);
  }
  const rows = table(data.entries).map((row, at) => {
    told(row, ["name", "protocol", "battery", "checks", "doubts", "worst_by"]);
    const e = encoders[row.encoder];
    return {
      ...row, at, e, method: e.method, arch: e.arch, labels: e.labels ? "yes" : "no",
      kind: e.labels ? `${e.method}, with labels` : e.method,
      place: row.last > row.rank ? `${row.rank} to ${row.last}` : `${row.rank || "-"}`,
      text: `${row.name} ${e.method} ${e.labels ? "with labels " : ""}${e.arch} ${e.description}`.toLowerCase(),
    };
  });
  const byName = new Map(rows.map((row) => [row.name, row]));

  const selects = [...document.querySelectorAll("select[data-filter]")];
  const headings = [...document.querySelectorAll("thead th")];
  const body = document.querySelector("tbody");
  const task = $("task"), search = $("search"), dialog = $("card");
  const views = [...document.querySelectorAll("button[data-view]")];
  const other = data.transfer.length ? transferView(data.transfer, () => remember()) : null;
  let moved = false; // to the transfer view
  let order = { key: "rank", descending: false };
  let at = 0; // page
  let ours = []; // rows of the task, best first within each protocol
  let shown = []; // those that match, in order

  // By how often they occur, those first that have a usual place.
  function kinds(name, first = []) {
    const counts = new Map();
    for (const row of ours) counts.set(row[name], (counts.get(row[name]) || 0) + 1);
    const place = (value) => first.includes(value) ? first.indexOf(value) : first.length;
    return [...counts.keys()].sort((a, b) =>
      place(a) - place(b) || counts.get(b) - counts.get(a) || words.compare(a, b));
  }

  function choose() {
    const number = Math.max(0, data.tasks.indexOf(task.value));
    ours = rows.filter((row) => row.task === number);
    for (const select of selects) {
      const before = select.value;
      const values = kinds(select.dataset.filter).sort(words.compare);
      select.replaceChildren(make("option", { value: "", textContent: "all" }),
        ...values.map((value) => make("option", { value, textContent: value })));
      select.value = values.includes(before) ? before : "";
    }
  }

  const VALUES = {
    rank: (row) => row.rank,
    name: (row) => row.e.name,
    protocol: (row) => row.protocol,
    clean: (row) => row.clean_k / row.clean_n,
    robust: (row) => row.robust_k / row.robust_n,
    images: (row) => row.robust_n,
  };

  function update() {
    const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const filters = selects.filter((s) => s.value).map((s) => [s.dataset.filter, s.value]);
    shown = ours.filter((row) => wanted.every((word) => row.text.includes(word)) &&
      filters.every(([name, value]) => row[name] === value));
    $("count").textContent = `${shown.length} of ${ours.length} entries`;
    $("none").hidden = shown.length > 0;
    $("figure").hidden = ours.length === 0;
    picture();
    arrange();
  }

  function arrange() {
    if (order.key === "rank" && !order.descending) {
      shown.sort((a, b) => a.at - b.at); // as ranked: protocol by protocol
    } else {
      const value = VALUES[order.key], sign = order.descending ? -1 : 1;
      shown.sort((a, b) => sign * (typeof value(a) === "number"
        ? value(a) - value(b) : words.compare(value(a), value(b))));
    }
    for (const heading of headings) {
      const same = heading.querySelector("button").dataset.sort === order.key;
      heading.setAttribute("aria-sort",
        same ? (order.descending ? "descending" : "ascending") : "none");
    }
    at = Math.max(0, Math.min(at, Math.ceil(shown.length / PAGE) - 1));
    list();
    remember();
  }

  // The table, a page of it.
  function list() {
    const from = at * PAGE, part = shown.slice(from, from + PAGE);
    const lines = [];
    let before = null;
    for (const row of part) {
      if (order.key === "rank" && !order.descending && row.protocol !== before) {
        lines.push(section(row));
        before = row.protocol;
      }
      lines.push(line(row));
    }
    body.replaceChildren(...lines);
    $("pager").hidden = shown.length <= PAGE;
    $("page").textContent = `${from + 1} to ${from + part.length} of ${shown.length}`;
    $("previous").disabled = at === 0;
    $("next").disabled = from + PAGE >= shown.length;
  }

  function section(row) {
    const count = row.rivals === 1 ? "one entry" : `${row.rivals} entries`;
    const head = make("th", { colSpan: headings.length, scope: "rowgroup" },
      row.protocol, make("span", { className: "quiet", textContent: ` ${count}, ranked among themselves` }));
    return make("tr", { className: "section" }, head);
  }

  function line(row) {
    const open = make("button", { type: "button", className: "open", textContent: row.e.name });
    open.setAttribute("aria-haspopup", "dialog");
    const quiet = (textContent) => make("span", { className: "quiet", textContent });
    const found = make("tr", {},
      make("td", { className: "number" }, row.place, quiet(row.rank ? ` of ${row.rivals}` : "")),
      make("th", { scope: "row" }, open, quiet(`${row.kind}, ${row.arch}`)),
      make("td", {}, row.protocol),
      figure(row, "clean"), figure(row, "robust"),
      make("td", { className: "number" }, `${row.robust_n}`));
    const labels = ["rank", "encoder", "protocol", "clean", "robust", "images"];
    labels.forEach((label, column) => { found.cells[column].dataset.label = label; });
    found.addEventListener("click", () => {
      if (!String(getSelection())) show(row); // else somebody is copying a figure
    });
    return found;
  }

  function figure(row, name) {
    const [value, low, high] = ["", "_low", "_high"].map((end) => row[name + end]);
    const cell = make("td", { className: "number" },
      make("span", { className: "figure", textContent: value.toFixed(1) }));
    if (name === "robust" && ["doubtful", "broken"].includes(row.checks)) {
      cell.append(make("span", { className: "doubt", title: row.doubts, textContent: ` ${row.checks}` }));
    }
    if (name === "robust" && row.checks === "not checked") {
      cell.append(make("span", { className: "unchecked", title: "no health check ran", textContent: ` ${row.checks}` }));
    }
    cell.append(make("span", { className: "quiet", textContent: ` [${low.toFixed(1)}, ${high.toFixed(1)}]` }));
    if (name === "robust" && row.worst !== null) {
      cell.append(make("span", { className: "quiet worst", title: worst(row), textContent: ` worst known ${row.worst.toFixed(1)}` }));
    }
    cell.append(
      draw("svg", { class: `bar ${name}`, viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
        draw("rect", { class: "all", width: 100, height: 6 }),
        draw("rect", { class: "value", width: value, height: 6 }),
        draw("rect", { class: "interval", x: low, width: high - low, y: 2, height: 2 })));
    return cell;
  }

  function worst(row) {
    return `under all that was tried, here ${row.worst_by} beyond the battery: ${row.worst.toFixed(1)}%`;
  }

  function picture() {
    const filter = selects.find((select) => select.dataset.filter === "method");
    const methods = kinds("method");
    const choose = (name) => {
      filter.value = filter.value === name ? "" : name;
      again();
      $("methods").querySelectorAll("button")[methods.indexOf(name)].focus();
    };
    plot({
      all: ours, shown, methods, protocols: kinds("protocol", KNOWN), chosen: filter.value, open: show, choose,
    });
  }

  // One entry's card.
  function show(row) {
    const e = row.e;
    const code = (text) => make("code", { textContent: text });
    const counted = (name) => `${row[name].toFixed(1)}% [${row[`${name}_low`].toFixed(1)}, ` +
      `${row[`${name}_high`].toFixed(1)}] of ${row[`${name}_n`]}`;
    const ties = row.last - row.rank, worse = row.rivals - row.last;
    const link = () => make("a", { href: e.source, rel: "noopener noreferrer nofollow", textContent: e.source });
    const facts = [
      ["entry", row.name + (row.verified ? ", just verified" : "")],
      ["rank", row.rank ? `${row.place} of ${row.rivals} (shown to be more robust: ${row.rank - 1}; ` +
        `less robust: ${worse}; not told apart: ${ties})` : "not ranked: its attacks or images cannot be compared with others, or a health check objected"],
      ["clean", counted("clean")],
      ["robust", `${counted("robust")}, ${row.battery}${row.undecided ? `, ${row.undecided} undecided` : ""}`],
      ["worst case known", row.worst !== null && worst(row)],
      ["health checks", row.doubts ? `${row.checks}: ${row.doubts}` : row.checks],
      ["dataset, threat model", data.tasks[row.task]],
      ["protocol", row.protocol],
      ["method", `${e.method}, ${e.made}`],
      ["architecture", `${e.arch}, ${row.parameters.toLocaleString("en")} parameters, ${e.dim} features`],
      ["licence", e.licence],
      ["source", e.link ? link() : e.source],
      ["made by", e.command && code(e.command)],
      ["check it", code(`robrep-zoo verify ${row.name}${data.verify}`)],
      ["SHA-256", code(e.sha256)],
      ["notes", e.notes],
    ].filter(([, value]) => value);
    $("card-title").textContent = e.name;
    $("card-text").textContent = e.description;
    $("card-facts").replaceChildren(...facts.flatMap(([term, value]) =>
      [make("dt", { textContent: term }), make("dd", {}, value)]));
    dialog.dataset.entry = row.name;
    if (!dialog.open) dialog.showModal();
    remember();
  }

  // What is shown stands in the address, so that it can be linked to.
  function remember() {
    const state = new URLSearchParams();
    if (moved) {
      state.set("view", "transfer");
      other.save(state);
      history.replaceState(null, "", `#${state}`);
      return;
    }
    if (task.selectedIndex > 0) state.set("task", task.value);
    if (search.value) state.set("search", search.value);
    for (const s of selects) if (s.value) state.set(s.dataset.filter, s.value);
    if (order.key !== "rank" || order.descending) {
      state.set("sort", `${order.descending ? "-" : ""}${order.key}`);
    }
    if (at) state.set("page", at + 1);
    if (dialog.open) state.set("entry", dialog.dataset.entry);
    const text = state.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  function view(name) {
    moved = Boolean(other) && name === "transfer";
    for (const id of ["choose", "views"]) $(id).hidden = moved;
    if (!other) return;
    $("transfer").hidden = !moved;
    for (const button of views) button.setAttribute("aria-pressed", String((button.dataset.view === "transfer") === moved));
    if (moved) other.show(); else other.hide();
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    if (other) other.recall(state);
    view(state.get("view"));
    if (moved) return;
    const entry = byName.get(state.get("entry"));
    const wanted = state.get("task") || (entry && data.tasks[entry.task]);
    task.selectedIndex = Math.max(0, data.tasks.indexOf(wanted));
    choose();
    search.value = state.get("search") || "";
    for (const s of selects) {
      const value = state.get(s.dataset.filter) || "";
      s.value = [...s.options].some((option) => option.value === value) ? value : "";
    }
    const [, minus, key] = /^(-?)(\w+)$/.exec(state.get("sort") || "rank") || [];
    order = Object.hasOwn(VALUES, key) ? { key, descending: minus === "-" } : { key: "rank", descending: false };
    at = Math.max(0, (parseInt(state.get("page"), 10) || 1) - 1);
    if (dialog.open && !entry) dialog.close();
    update();
    if (entry) show(entry);
  }

  function again() { at = 0; update(); }

  for (const button of views) {
    button.addEventListener("click", () => {
      view(button.dataset.view);
      remember();
      if (!moved) recall();
    });
  }

  task.addEventListener("change", () => { choose(); again(); });
  search.addEventListener("input", again);
  for (const s of selects) s.addEventListener("change", again);
  for (const heading of headings) {
    heading.querySelector("button").addEventListener("click", () => {
      const key = heading.querySelector("button").dataset.sort;
      // Accuracies are first shown best first, all else in ascending order.
      const first = ["clean", "robust", "images"].includes(key);
      order = { key, descending: order.key === key ? !order.descending : first };
      at = 0;
      arrange();
    });
  }
  $("reset").addEventListener("click", () => {
    search.value = "";
    for (const s of selects) s.value = "";
    order = { key: "rank", descending: false };
    again();
    search.focus();
  });
  for (const [id, step] of [["previous", -1], ["next", 1]]) {
    $(id).addEventListener("click", () => {
      at += step;
      arrange();
      $("rows").scrollIntoView();
    });
  }
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); }); // on the backdrop
  dialog.addEventListener("close", remember);
  addEventListener("hashchange", recall);
  if (matchMedia("(max-width: 44rem)").matches) $("more").open = false;
  recall();
})();
