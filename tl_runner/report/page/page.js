"use strict";
// A head sorts its table: numbers by value, largest first; texts from a to z; what has no value stays at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const numeric = head.classList.contains("number");
      const now = head.getAttribute("aria-sort");
      const first = numeric ? "descending" : "ascending";
      const order = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        if (!numeric) return sign * value(a).localeCompare(value(b), "en", { numeric: true });
        const [x, y] = [Number(value(a)), Number(value(b))];
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return sign * (x - y);
      };
      heads.forEach((other) => other.setAttribute("aria-sort", other === head ? order : "none"));
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(compare));
    });
  });
}
