// Give the selected layers a format.
import { canStore } from "./edits.js";
import { button, el, menu } from "./dom.js";
import { nameFilter } from "./filter.js";
import { counted } from "./numbers.js";
import { ruleLines } from "./rule_lines.js";

/** @typedef {import("./state.js").ViewState} ViewState */

export class EditBar {
  /** @param {ViewState} state whose view can be edited */
  constructor(state) {
    this.state = state;
    const formats = state.view.edit?.formats ?? [];
    this.format = formats[0] ?? "";
    this.filter = el("input", {
      class: "nv-input",
      attributes: { type: "search", placeholder: "select by name or glob", "aria-label": "Select layers by name or glob" },
      on: {
        input: () => this.selectByName(),
        keydown: (event) => {
          if (event.key === "Enter") this.apply();
        },
      },
    });
    this.menu = menu("Format for the selected layers", formats.map((value) => ({ value, label: value })), this.format, (value) => {
      this.format = value;
      this.refresh();
    });
    this.applyButton = button("Apply", () => this.apply(), { class: "nv-primary" });
    this.clearButton = button("Clear", () => this.clear(), { title: "Select nothing" });
    this.note = el("span", { class: "nv-edit-note", attributes: { "aria-live": "polite" } });
    this.element = el("div", { class: "nv-edit-bar" }, this.filter, this.menu, this.applyButton, this.clearButton, this.note);
    this.refresh();
  }

  selectByName() {
    const { state } = this;
    const text = this.filter.value;
    const accepts = nameFilter(text);
    state.select(text.trim() ? state.shown.filter((layer) => accepts(state.layers?.names[layer] ?? "")) : []);
  }

  clear() {
    this.filter.value = "";
    this.state.select([]);
  }

  refresh() {
    const { state } = this;
    const count = state.selection.size;
    this.applyButton.disabled = count === 0 || !this.format;
    this.clearButton.hidden = count === 0;
    if (count === 0) {
      this.note.textContent = "Drag over cells, or click a row or a block number.";
      return;
    }
    const unfit = [...state.selection].filter((layer) => !canStore(state.view, layer, this.format)).length;
    const more = unfit > 0 ? `; ${unfit} cannot be ${this.format} and stay as they are` : "";
    this.note.textContent = `${counted(count, "layer")} selected${more}`;
  }

  /** Hand rule lines for the selection to the node. */
  apply() {
    const { state, format } = this;
    if (state.selection.size === 0 || !format) return;
    const { lines, left_out: leftOut } = ruleLines(state.placed, state.selection, format, state.view.edit?.unquantized);
    if (lines.length > 0) state.options.onRules?.(lines);
    state.refreshEdits();
    this.filter.value = "";
    state.select([]);
    state.emit("edits");
    const rest = leftOut.length > 0 ? `; ${counted(leftOut.length, "layer")} left out: ${format} is for Linear layers` : "";
    this.note.textContent = `${counted(lines.length, "rule line")} added${rest}`;
  }
}
