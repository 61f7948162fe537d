"use strict";
// Sorting, searching and filtering of rows that are already in the page. No text is
// ever turned into markup here.
(() => {
  const body = document.querySelector("tbody");
  const rows = [...body.rows];
  const search = document.getElementById("search");
  const selects = [...document.querySelectorAll("select[data-filter]")];
  const headings = [...document.querySelectorAll("thead th")];
  const points = [...document.querySelectorAll(".point")];

  function matches(row) {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    return words.every((word) => row.dataset.text.includes(word)) &&
      selects.every((s) => !s.value || row.dataset[s.dataset.filter] === s.value);
  }

  function filter() {
    let shown = 0;
    for (const row of rows) {
      row.hidden = !matches(row);
      shown += row.hidden ? 0 : 1;
    }
    for (const point of points) {
      const row = document.getElementById(point.dataset.row);
      point.classList.toggle("faded", row.hidden);
    }
    document.getElementById("count").textContent = `${shown} of ${rows.length} entries`;
    document.getElementById("none").hidden = shown > 0;
    remember();
  }

  // The filters stand in the address, so that a view can be linked to.
  function remember() {
    const state = new URLSearchParams();
    if (search.value) state.set("search", search.value);
    for (const s of selects) if (s.value) state.set(s.dataset.filter, s.value);
    const text = state.toString();
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    search.value = state.get("search") || "";
    for (const s of selects) {
      const value = state.get(s.dataset.filter) || "";
      s.value = [...s.options].some((option) => option.value === value) ? value : "";
    }
    filter();
  }

  function sort(heading) {
    const button = heading.querySelector("button");
    const column = headings.indexOf(heading);
    const number = button.dataset.kind === "number";
    const was = heading.getAttribute("aria-sort");
    // Accuracies are first shown best first, all else in ascending order.
    const first = ["clean", "robust", "images"].includes(button.dataset.sort)
      ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = was === first ? other : first;
    for (const h of headings) h.setAttribute("aria-sort", h === heading ? order : "none");
    const value = (row) => row.cells[column].dataset.value;
    const sign = order === "ascending" ? 1 : -1;
    rows.sort((a, b) => sign * (number
      ? Number(value(a)) - Number(value(b))
      : value(a).localeCompare(value(b), "en", { numeric: true })));
    body.append(...rows);
    body.parentElement.classList.add("sorted"); // rows of one group no longer adjoin
  }

  function open(id) {
    document.getElementById(id).showModal();
  }

  search.addEventListener("input", filter);
  for (const s of selects) s.addEventListener("change", filter);
  for (const h of headings) h.querySelector("button").addEventListener("click", () => sort(h));
  document.getElementById("reset").addEventListener("click", () => {
    search.value = "";
    for (const s of selects) s.value = "";
    filter();
    search.focus();
  });
  for (const row of rows) {
    row.addEventListener("click", () => {
      if (String(getSelection())) return; // somebody is copying a figure
      open(row.querySelector(".open").dataset.open);
    });
  }
  for (const point of points) {
    point.addEventListener("click", () => open(point.dataset.open));
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // on the backdrop
    });
  }
  recall();
})();
