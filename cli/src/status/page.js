// Keeps a page fresh from the JSON of its view, and sorts tables in place. The page is whole without it.
"use strict";
(() => {
  const main = document.querySelector("main");
  const freshness = document.getElementById("freshness");
  const sorts = new Map();
  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };

  // Text is set as text: nothing that a peer or an app is called becomes markup.
  const fillCell = (td, cell, isNumber) => {
    td.className = [isNumber ? "number" : "", cell.is_alarming ? "alarm" : ""].join(" ").trim();
    td.replaceChildren();
    if (cell.bar !== undefined) {
      const bar = svg("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" });
      bar.append(svg("rect", { width: Math.round(cell.bar * 100), height: 10 }));
      td.append(bar);
    }
    if (cell.href !== undefined) {
      const a = document.createElement("a");
      a.href = cell.href;
      a.textContent = cell.text;
      td.append(a);
    } else {
      td.append(cell.text);
    }
    if (cell.number !== undefined) td.dataset.number = cell.number;
  };

  const key = td => td.dataset.number === undefined ? td.textContent : Number(td.dataset.number);

  const sort = section => {
    const by = sorts.get(section.id);
    if (!by) return;
    const body = section.querySelector("tbody");
    const sign = by.descending ? -1 : 1;
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a.cells[by.column]), key(b.cells[by.column])];
      return sign * (typeof x === "number" && typeof y === "number" ? x - y : x < y ? -1 : x > y ? 1 : 0);
    });
    body.append(...rows);
    [...section.querySelectorAll("th")].forEach((th, index) => {
      if (index === by.column) th.setAttribute("aria-sort", by.descending ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    });
  };

  for (const section of document.querySelectorAll("section.table")) {
    [...section.querySelectorAll("th")].forEach((th, column) => {
      const given = th.getAttribute("aria-sort");
      if (given) sorts.set(section.id, { column, descending: given === "descending" });
      th.firstElementChild.addEventListener("click", event => {
        event.preventDefault();
        const by = sorts.get(section.id);
        const descending = by && by.column === column ? !by.descending : th.classList.contains("number");
        sorts.set(section.id, { column, descending });
        sort(section);
      });
    });
  }

  const show = view => {
    const sections = [...document.querySelectorAll("section.table")];
    if (sections.map(section => section.id).join() !== view.tables.map(table => table.id).join()) {
      // A layer came or went: another page.
      location.reload();
      return;
    }
    document.querySelectorAll(".tile").forEach((tile, index) => {
      const { value, is_alarming } = view.tiles[index];
      tile.querySelector("b").textContent = value;
      tile.classList.toggle("alarm", is_alarming === true);
    });
    document.querySelectorAll("figure").forEach((figure, index) => {
      const plot = view.plots[index];
      if (!plot) return;
      figure.querySelector(".top").textContent = plot.top;
      figure.querySelectorAll("path.line").forEach((path, line) => path.setAttribute("d", plot.lines[line].path));
      figure.querySelectorAll(".legend b").forEach((b, line) => { b.textContent = plot.lines[line].now; });
    });
    for (const table of view.tables) {
      const section = document.getElementById(table.id);
      const focused = section.querySelector("tbody a:focus");
      section.querySelector("h2").textContent = table.title;
      section.querySelector(".empty").hidden = table.rows.length > 0;
      section.querySelector(".scroll").hidden = table.rows.length === 0;
      section.querySelector("tbody").replaceChildren(...table.rows.map(row => {
        const tr = document.createElement("tr");
        row.forEach((cell, index) => fillCell(tr.insertCell(), cell, table.columns[index].is_number));
        return tr;
      }));
      sort(section);
      if (focused) {
        const again = [...section.querySelectorAll("tbody a")].find(a => a.href === focused.href);
        if (again) again.focus({ preventScroll: true });
      }
    }
  };

  // Somebody is about to copy something.
  const isSelecting = () => {
    const selection = getSelection();
    return !selection.isCollapsed && main.contains(selection.anchorNode);
  };

  const refresh = async () => {
    try {
      const answer = await fetch(main.dataset.json, { cache: "no-store", signal: AbortSignal.timeout(5000) });
      if (answer.status === 404) {
        freshness.className = "stale";
        freshness.textContent = "it has ended: this is what it was";
        return;
      }
      if (!answer.ok) throw new Error((await answer.text()).trim());
      const { view } = await answer.json();
      freshness.className = "";
      if (isSelecting()) {
        freshness.textContent = "held while text is selected";
      } else {
        show(view);
        freshness.textContent = "live, " + new Date().toLocaleTimeString();
      }
    } catch (error) {
      freshness.className = "stale";
      freshness.textContent = "not refreshed: " + error.message;
    }
    setTimeout(refresh, document.hidden ? 10000 : 1000);
  };
  if (main.dataset.json) setTimeout(refresh, 1000);
})();
