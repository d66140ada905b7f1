// Give the selected layers a format.
import { canStore } from "./edits.js";
import { button, checkbox, el, menu } from "./dom.js";
import { nameFilter } from "./filter.js";
import { counted } from "./numbers.js";
import { ruleLines } from "./rule_lines.js";
import { isUnquantized } from "./rules.js";
import { safeText } from "./safe_text.js";
import { othersOfWholeBlocks } from "./whole_blocks.js";

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
    this.whole = false;
    this.wholeBox = checkbox("", false, (whole) => {
      this.whole = whole;
      this.refresh();
    });
    this.applyButton = button("Apply", () => this.apply(), { class: "nv-primary" });
    this.clearButton = button("Clear", () => this.clear(), { title: "Select nothing" });
    this.note = el("span", { class: "nv-edit-note", attributes: { "aria-live": "polite" } });
    this.element = el("div", { class: "nv-edit-bar" }, this.filter, this.menu, this.applyButton, this.clearButton, this.wholeBox, this.note);
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
    this.element.classList.toggle("nv-in-use", count > 0);
    this.offerWholeBlocks();
    if (count === 0) {
      this.note.textContent = "Drag over cells, or click a row or a block number.";
      return;
    }
    const unfit = [...state.selection].filter((layer) => !canStore(state.view, layer, this.format)).length;
    const more = unfit > 0 ? `; ${unfit} cannot be ${this.format} and stay as they are` : "";
    this.note.textContent = `${counted(count, "layer")} selected${more}`;
  }

  /**
   * Rules of unquantized formats can take the norms of a block too, so that one line names the
   * block: ask where that would change them.
   */
  offerWholeBlocks() {
    const { state } = this;
    const others = this.othersOfBlocks();
    const changed = others.filter((layer) => state.formatOf(layer) !== this.format).length;
    this.wholeBox.hidden = changed === 0;
    if (changed === 0) this.whole = false;
    const box = this.wholeBox.querySelector("input");
    if (box) box.checked = this.whole;
    const label = this.wholeBox.querySelector("span");
    if (label) label.textContent = `with ${counted(changed, "other layer")} of ${this.blockWord()}`;
    this.wholeBox.title = "Norms and parameters: one rule line can then name whole blocks";
  }

  blockWord() {
    const { placed, selection } = this.state;
    const blocks = new Set([...selection].map((i) => `${placed[i].list}.${placed[i].block}`));
    return blocks.size === 1 ? "this block" : "these blocks";
  }

  /** Layers of other kinds than Linear in blocks whose Linear layers are all selected. */
  othersOfBlocks() {
    const { state } = this;
    if (!isUnquantized(this.format, state.view.edit?.unquantized)) return [];
    return othersOfWholeBlocks(state.placed, state.selection);
  }

  /** Hand rule lines for the selection to the node. */
  apply() {
    const { state, format } = this;
    if (state.selection.size === 0 || !format) return;
    const others = this.othersOfBlocks();
    const chosen = new Set([...state.selection, ...(this.whole ? others : [])]);
    // Lines may reach layers that already are what the line says.
    const free = others.filter((layer) => state.formatOf(layer) === format);
    const { unquantized } = state.view.edit ?? {};
    const { lines, left_out: leftOut } = ruleLines(state.placed, chosen, format, unquantized, free);
    if (lines.length > 0) state.options.onRules?.(lines);
    state.refreshEdits();
    this.filter.value = "";
    state.select([]);
    state.emit("edits");
    const rest = leftOut.length > 0 ? `; ${counted(leftOut.length, "layer")} left out: ${format} is for Linear layers` : "";
    const shown = lines.length <= 2 ? lines.map(safeText).join(" and ") : counted(lines.length, "rule line");
    this.note.textContent = `Added ${shown}${rest}. Run to apply.`;
  }
}
