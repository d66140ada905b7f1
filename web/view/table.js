// The table: only the rows in sight are in the document.
import { button, el } from "./dom.js";
import { nameFilter } from "./filter.js";
import { counted } from "./numbers.js";
import { sortLayers, tableColumns, worstLayers } from "./table_rows.js";

/** @typedef {import("./state.js").ViewState} ViewState */

const ROW_HEIGHT = 22;
const AHEAD = 8; // rows drawn above and below what is in sight

export class LayerTable {
  /** @param {ViewState} state */
  constructor(state) {
    this.state = state;
    /** @type {import("./table_rows.js").Order | null} */
    this.order = null;
    this.filter = "";
    this.worst = false;
    this.columns = tableColumns(state);
    /** @type {number[]} */
    this.rows = [];
    this.focused = 0;
    this.search = el("input", {
      class: "nv-input",
      attributes: { type: "search", placeholder: "filter by name or glob", "aria-label": "Filter layers by name" },
      on: { input: () => this.setFilter(this.search.value) },
    });
    this.worstButton = button("Worst 20", () => this.setWorst(!this.worst), { pressed: false });
    this.count = el("span", { class: "nv-muted", attributes: { "aria-live": "polite" } });
    this.toolbar = el("div", { class: "nv-toolbar" }, this.search, this.worstButton, this.count);
    this.head = el("thead");
    this.body = el("tbody");
    this.group = el("colgroup");
    this.table = el("table", { class: "nv-table", attributes: { role: "grid" } }, this.group, this.head, this.body);
    this.viewport = el("div", {
      class: "nv-viewport",
      attributes: { tabindex: "0", role: "region", "aria-label": "Table of layers" },
      on: { scroll: () => this.draw(), keydown: (event) => this.key(event) },
    }, this.table);
    this.element = el("div", { class: "nv-table-box" }, this.viewport);
    this.refresh();
  }

  /** @param {string} text */
  setFilter(text) {
    this.filter = text;
    this.search.value = text;
    this.arrange();
  }

  /** @param {boolean} worst */
  setWorst(worst) {
    this.worst = worst;
    const measure = this.state.errorMeasure;
    this.order = worst && measure ? { column: measure.id, descending: true } : null;
    this.drawHead();
    this.arrange();
  }

  /** Columns may have come or gone. */
  refresh() {
    this.columns = tableColumns(this.state);
    if (!this.columns.some((column) => column.id === this.order?.column)) this.order = null;
    const measure = this.state.errorMeasure;
    this.worstButton.hidden = !measure;
    this.worstButton.title = measure ? `The 20 layers with the highest ${measure.label}` : "";
    this.drawHead();
    this.arrange();
  }

  drawHead() {
    this.worstButton.setAttribute("aria-pressed", String(this.worst));
    this.group.replaceChildren(
      ...this.columns.map((column) => {
        const col = el("col");
        col.style.width = `${column.width}px`;
        return col;
      }),
    );
    const width = this.columns.reduce((sum, column) => sum + column.width, 0);
    this.table.style.width = `${width}px`;
    const row = el("tr");
    for (const column of this.columns) {
      const own = this.order?.column === column.id;
      const sorted = own ? (this.order?.descending ? "descending" : "ascending") : "none";
      const arrow = own ? (this.order?.descending ? " ▾" : " ▴") : "";
      const press = el("button", {
        text: column.label + arrow,
        attributes: { type: "button", title: column.help || `Sort by ${column.label}` },
        on: { click: () => this.sortBy(column.id, column.numeric) },
      });
      row.append(el("th", { class: column.numeric ? "nv-number" : "", attributes: { "aria-sort": sorted, scope: "col" } }, press));
    }
    const focused = /** @type {Document | ShadowRoot} */ (this.head.getRootNode()).activeElement;
    const at = focused ? [...this.head.querySelectorAll("button")].indexOf(/** @type {any} */ (focused)) : -1;
    this.head.replaceChildren(row);
    if (at >= 0) this.head.querySelectorAll("button")[at]?.focus();
  }

  /**
   * Numbers start with the highest; a third press restores the order of the model.
   * @param {string} column
   * @param {boolean} numeric
   */
  sortBy(column, numeric) {
    const own = this.order?.column === column ? this.order : null;
    if (!own) this.order = { column, descending: numeric };
    else if (own.descending === numeric) this.order = { column, descending: !numeric };
    else this.order = null;
    this.worst = this.worst && this.order !== null;
    this.drawHead();
    this.arrange();
  }

  /** Choose and sort the rows. */
  arrange() {
    const { state } = this;
    const layers = state.layers;
    if (!layers) return;
    const accepts = nameFilter(this.filter);
    const shown = state.shown;
    let rows = shown.filter((layer) => accepts(layers.names[layer]));
    const measure = state.errorMeasure;
    if (this.worst && measure) rows = worstLayers(rows, (layer) => layers.value(measure.id, layer));
    const column = this.columns.find(({ id }) => id === this.order?.column);
    this.rows = column ? sortLayers(rows, column, this.order?.descending ?? false) : rows;
    const of = rows.length === shown.length ? "" : ` of ${shown.length}`;
    this.count.textContent = of ? `${rows.length}${of} layers` : counted(rows.length, "layer");
    this.table.setAttribute("aria-rowcount", String(this.rows.length + 1));
    this.viewport.scrollTop = 0;
    this.focused = 0;
    this.draw();
  }

  /** @param {boolean} [all] every row, for print */
  draw(all = false) {
    const height = this.viewport.clientHeight || 300;
    const first = all ? 0 : Math.max(0, Math.floor(this.viewport.scrollTop / ROW_HEIGHT) - AHEAD);
    const last = all ? this.rows.length : Math.min(this.rows.length, first + Math.ceil(height / ROW_HEIGHT) + 2 * AHEAD);
    const rows = this.rows.slice(first, last).map((layer, i) => this.row(layer, first + i));
    this.body.replaceChildren(this.space(first), ...rows, this.space(this.rows.length - last));
  }

  /** @param {number} rows that are not drawn */
  space(rows) {
    const row = el("tr", { class: "nv-space", attributes: { "aria-hidden": "true" } });
    row.style.height = `${rows * ROW_HEIGHT}px`;
    return row;
  }

  /**
   * @param {number} layer
   * @param {number} at
   */
  row(layer, at) {
    const { state } = this;
    const marks = [];
    if (layer === state.detail) marks.push("nv-open");
    if (state.pending.has(layer)) marks.push("nv-pending");
    if (at === this.focused) marks.push("nv-focused");
    const row = el("tr", {
      class: marks.join(" "),
      attributes: { "aria-rowindex": at + 2 },
      on: {
        click: () => {
          this.focused = at;
          state.openDetail(layer);
        },
      },
    });
    for (const column of this.columns) {
      const kind = column.numeric ? "nv-number" : column.long ? "nv-long" : "";
      row.append(el("td", { class: kind, text: column.text(layer) }));
    }
    return row;
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (event.target !== this.viewport) return;
    const page = Math.max(1, Math.floor(this.viewport.clientHeight / ROW_HEIGHT) - 2);
    const last = this.rows.length - 1;
    /** @type {{ [key: string]: number }} */
    const steps = {
      ArrowDown: this.focused + 1,
      ArrowUp: this.focused - 1,
      PageDown: this.focused + page,
      PageUp: this.focused - page,
      Home: 0,
      End: last,
    };
    if (event.key in steps) {
      this.focused = Math.max(0, Math.min(last, steps[event.key]));
      this.reveal();
      if (this.state.detail >= 0) this.state.openDetail(this.rows[this.focused] ?? -1);
      this.draw();
    } else if (event.key === "Enter" && this.rows.length > 0) this.state.openDetail(this.rows[this.focused]);
    else if (event.key === "Escape" && this.state.detail >= 0) this.state.openDetail(-1);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  reveal() {
    const top = this.focused * ROW_HEIGHT;
    const room = this.viewport.clientHeight - 2 * ROW_HEIGHT;
    if (top < this.viewport.scrollTop) this.viewport.scrollTop = top;
    else if (top > this.viewport.scrollTop + room) this.viewport.scrollTop = top - room;
  }
}
