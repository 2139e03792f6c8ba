// A click, Enter or space on a column's head sorts the table by it; again, the other way.
function sortBy(head) {
  const row = head.parentNode;
  const body = head.closest("table").tBodies[0];
  const column = Array.from(row.children).indexOf(head);
  const up = head.getAttribute("aria-sort") !== "ascending";
  for (const other of row.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const text = (line) => line.children[column].textContent;
  const compare = (a, b) => {
    const x = parseFloat(text(a)), y = parseFloat(text(b));
    const both = !isNaN(x) && !isNaN(y);
    return (both ? x - y : text(a).localeCompare(text(b))) * (up ? 1 : -1);
  };
  Array.from(body.rows).sort(compare).forEach((line) => body.appendChild(line));
}

document.addEventListener("DOMContentLoaded", () => {
  for (const head of document.querySelectorAll("table.sortable th")) {
    head.addEventListener("click", () => sortBy(head));
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); sortBy(head); }
    });
  }
});
