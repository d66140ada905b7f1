// Puts a view into an element: tiles, messages, and tabs with the map, the table and the text.
import { DetailPanel } from "./detail.js";
import { button, el } from "./dom.js";
import { download, fileStem, mapPicture, viewCsv, viewJson } from "./exports.js";
import { FrontierChart } from "./frontier.js";
import { frameIcon, fullButton, FullScreen } from "./fullscreen.js";
import { linearSwitch, MapTab } from "./map_tab.js";
import { drawMessages } from "./messages.js";
import { ViewState } from "./state.js";
import { addStyles, DETAIL_GAP, DETAIL_WIDTH, WIDE } from "./styles.js";
import { LayerTable } from "./table.js";
import { Tabs } from "./tabs.js";
import { textTab } from "./text_tab.js";
import { readTheme } from "./theme.js";
import { drawTiles } from "./tiles.js";
import { Tooltip } from "./tooltip.js";

/** @typedef {import("./types.js").LayerView} LayerView */
/** @typedef {import("./types.js").ViewOptions} ViewOptions */
/** @typedef {import("./types.js").MountedView} MountedView */
/** @typedef {import("./types.js").Status} Status */

const PRINT_WIDTH = 960;

/**
 * Show a view in an element, which gives the size.
 *
 * `onBudget` gets sizes in GB and errors in percent. Call `refreshEdits` when the text of the
 * rule widget changed in another way than through `onRules`.
 * @param {HTMLElement} host
 * @param {LayerView} view
 * @param {ViewOptions} [options]
 * @returns {MountedView}
 */
export function mountView(host, view, options = {}) {
  const mounted = new View(host, view, options);
  return {
    update: (next) => mounted.update(next),
    setStatus: (status) => mounted.setStatus(status),
    refreshEdits: () => mounted.refreshEdits(),
    destroy: () => mounted.destroy(),
  };
}

class View {
  /**
   * @param {HTMLElement} host
   * @param {LayerView} view
   * @param {ViewOptions} options
   */
  constructor(host, view, options) {
    this.options = options;
    this.body = el("div", { class: "nv-body" });
    this.root = el("div", { class: "nv-root", attributes: { "data-nvfp4-view": true } }, this.body);
    host.append(this.root);
    addStyles(this.root);
    this.tooltip = new Tooltip(this.root);
    this.status = el("span", { class: "nv-status", attributes: { hidden: true, role: "status" } });
    this.full = new FullScreen(this.root, (open) => this.onFullScreen(open));
    // The canvas of ComfyUI would zoom and pan.
    this.root.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
    }, { passive: true });
    this.root.addEventListener("pointerdown", (event) => {
      if (event.button === 0) event.stopPropagation();
    });
    // Keys without Ctrl are commands of ComfyUI, such as deleting the node.
    this.root.addEventListener("keydown", (event) => {
      const typed = event.key.length === 1 || event.key === "Delete" || event.key === "Backspace";
      if (typed && !event.ctrlKey && !event.metaKey && !event.altKey) event.stopPropagation();
    });
    this.observer = new ResizeObserver(() => this.resize());
    this.observer.observe(this.root);
    this.darkQuery = matchMedia("(prefers-color-scheme: dark)");
    this.onTheme = () => this.themed();
    this.darkQuery.addEventListener("change", this.onTheme);
    this.themeObserver = new MutationObserver(this.onTheme);
    for (const element of [document.documentElement, document.body]) {
      this.themeObserver.observe(element, { attributes: true, attributeFilter: ["class", "style"] });
    }
    this.onPrint = () => this.print(true);
    this.afterPrint = () => this.print(false);
    window.addEventListener("beforeprint", this.onPrint);
    window.addEventListener("afterprint", this.afterPrint);
    this.width = 0;
    this.panel = 0;
    this.themeKey = "";
    /** @type {LayerTable | null} */
    this.table = null;
    this.state = new ViewState(view, options);
    this.build();
  }

  build() {
    const { state, root } = this;
    this.adoptTheme();
    const { view } = state;
    this.title = el("h2", { text: view.title });
    this.fullButton = fullButton(() => this.full.toggle());
    this.tiles = el("div", { class: "nv-tiles" });
    this.messages = el("div", { class: "nv-messages" });
    drawTiles(this.tiles, state);
    this.drawMessages();
    this.frontier = view.frontier && view.frontier.points.length > 0
      ? new FrontierChart(state, view.frontier, root, this.tooltip)
      : null;
    this.panels = el("div", { class: "nv-panels" });
    this.buildTabs();
    root.classList.toggle("nv-plain", !state.layers);
    const head = el("div", { class: "nv-head" }, this.title, this.status, this.fullButton);
    this.body.replaceChildren(head, this.tiles, this.messages);
    if (this.frontier) this.body.append(this.frontier.element);
    if (this.tabsRow) this.body.append(this.tabsRow);
    this.body.append(this.panels);
    state.listen((change) => this.onChange(change));
    this.width = 0;
    this.panel = 0;
    this.resize();
    this.tabs?.open(this.tabs.current);
  }

  buildTabs() {
    const { state, root } = this;
    const text = textTab(state.view.text);
    text.classList.add("nv-panel", "nv-for-text");
    this.map = null;
    this.table = null;
    this.detail = null;
    this.tabs = null;
    this.tabsRow = null;
    if (!state.layers) {
      this.panels?.append(text);
      return;
    }
    this.detail = new DetailPanel(state, root);
    const tabs = [];
    if (state.measures.length > 0) {
      this.map = new MapTab(state, root, this.tooltip);
      tabs.push({ id: "map", label: "Map", panel: this.map.element });
    }
    const tablePanel = el("div", { class: "nv-panel nv-for-table" });
    this.tablePanel = tablePanel;
    tabs.push({ id: "table", label: "Table", panel: tablePanel }, { id: "text", label: "Text", panel: text });
    this.tabs = new Tabs(tabs, (id) => this.onTab(id));
    const tools = el(
      "div",
      { class: "nv-tools" },
      button("CSV", () => this.export("csv"), { class: "nv-small", title: "Download the table with all layers" }),
      button("JSON", () => this.export("json"), { class: "nv-small", title: "Download the data of this view" }),
      button("PNG", () => this.export("png"), { class: "nv-small", title: "Download the map as a picture" }),
    );
    this.tabsRow = el("div", { class: "nv-tabs-row" }, this.tabs.element, tools);
    this.panels?.append(...tabs.map((tab) => tab.panel));
    this.placeDetail();
  }

  /** @param {import("./state.js").Change} change */
  onChange(change) {
    if (change === "edits") {
      drawTiles(this.tiles ?? el("div"), this.state);
      this.drawMessages();
    }
    if (change === "measure" || change === "shown" || change === "edits" || change === "theme") {
      this.map?.refresh();
      this.table?.refresh();
      const box = this.tableSwitch?.querySelector("input");
      if (box) box.checked = !this.state.onlyLinears;
      if (change !== "measure") this.detail?.refresh();
    } else if (change === "detail") {
      this.detail?.refresh();
      this.resize();
      this.table?.draw();
      this.map?.map.schedule();
      this.map?.map.keepInSight(this.body, this.state.detail);
    } else if (change === "selection") {
      this.map?.edits?.refresh();
      this.map?.map.schedule();
    } else this.map?.map.schedule();
  }

  /** What is wrong with the rules as they are typed, before what the last run said. */
  drawMessages() {
    const { state } = this;
    const wrong = state.problems.map((text) => /** @type {const} */ ({ level: "error", text }));
    if (this.messages) drawMessages(this.messages, [...wrong, ...state.view.messages]);
  }

  /** @param {string} id */
  onTab(id) {
    this.tooltip.hide();
    if (id === "text" && this.state.detail >= 0) this.state.openDetail(-1);
    if (id === "table") {
      this.openTable();
      this.table?.draw();
    }
    if (id === "map") this.map?.map.resize(this.panelWidth());
  }

  /**
   * Details are a column beside the panel of a wide view, else a drawer below everything that
   * scrolls: they never lie over the map or the bar for edits.
   */
  placeDetail() {
    if (!this.detail) return;
    const place = this.isWide() ? this.panels : this.root;
    const { element } = this.detail;
    if (place && element.parentElement !== place) place.append(element);
  }

  isWide() {
    return this.root.clientWidth >= WIDE;
  }

  /** Width of what is inside the padding. */
  inner() {
    const style = getComputedStyle(this.body);
    return this.body.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
  }

  /** Width of the open panel: details take their part of a wide view. */
  panelWidth() {
    const beside = this.state.detail >= 0 && this.isWide();
    return this.inner() - (beside ? DETAIL_WIDTH + DETAIL_GAP : 0);
  }

  resize() {
    const [width, panel] = [this.inner(), this.panelWidth()];
    if (width <= 0) return;
    this.placeDetail();
    this.root.style.setProperty("--nv-height", `${this.root.clientHeight}px`);
    if (width !== this.width) this.frontier?.resize(width - 16);
    if (panel !== this.panel && this.tabs?.current === "map") this.map?.map.resize(panel);
    this.width = width;
    this.panel = panel;
    if (this.tabs?.current === "table") this.table?.draw();
  }

  themed() {
    const before = this.themeKey;
    this.adoptTheme();
    if (before === this.themeKey) return;
    this.frontier?.refresh();
    this.state.emit("theme");
  }

  adoptTheme() {
    const { dark } = readTheme(this.root);
    this.state.dark = dark;
    this.root.classList.toggle("nv-light", !dark);
    this.themeKey = JSON.stringify(readTheme(this.root));
  }

  /** @param {boolean} printing on paper: light, all rows of the table */
  print(printing) {
    this.root.classList.toggle("nv-printing", printing);
    this.themed();
    if (printing) {
      this.openTable();
      this.map?.map.resize(Math.min(this.inner(), PRINT_WIDTH));
      this.frontier?.resize(Math.min(this.inner(), PRINT_WIDTH) - 16);
    } else {
      this.panel = 0;
      this.width = 0;
      this.resize();
    }
    this.table?.draw(printing);
  }

  /** The table is made when it is first seen. */
  openTable() {
    if (!this.state.layers || this.table) return;
    this.table = new LayerTable(this.state);
    const all = linearSwitch(this.state);
    if (all) this.table.toolbar.append(all);
    this.tableSwitch = all;
    this.tablePanel?.append(this.table.toolbar, this.table.element);
  }

  /** @param {boolean} open */
  onFullScreen(open) {
    addStyles(this.root);
    if (this.fullButton) {
      this.fullButton.replaceChildren(frameIcon(open));
      this.fullButton.title = open ? "Close the full screen (Escape)" : "Full screen";
      this.fullButton.setAttribute("aria-label", this.fullButton.title);
      this.fullButton.focus({ preventScroll: true });
    }
    this.tooltip.hide();
    this.width = 0;
    this.panel = 0;
    this.resize();
  }

  /** @param {"csv" | "json" | "png"} kind */
  export(kind) {
    const { state } = this;
    const stem = fileStem(this.options.fileName ?? state.view.title);
    if (kind === "csv") download(`${stem}.csv`, new Blob([viewCsv(state)], { type: "text/csv;charset=utf-8" }));
    else if (kind === "json") download(`${stem}.json`, new Blob([viewJson(state)], { type: "application/json" }));
    else mapPicture(state)?.toBlob((blob) => blob && download(`${stem}_${state.measure}.png`, blob), "image/png");
  }

  refreshEdits() {
    this.state.refreshEdits();
    this.state.emit("edits");
  }

  /**
   * Show another view; the tab, the measure, the selection and the open layer stay where they can.
   * @param {LayerView} view
   */
  update(view) {
    const before = this.state;
    const tab = this.tabs?.current;
    this.teardown();
    const next = new ViewState(view, this.options);
    this.state = next;
    if (next.measures.some(({ id }) => id === before.measure)) next.measure = before.measure;
    next.onlyLinears = before.onlyLinears;
    const at = new Map(next.layers?.names.map((name, i) => [name, i]));
    /** @param {number} layer */
    const same = (layer) => at.get(before.layers?.names[layer] ?? "") ?? -1;
    next.selection = new Set([...before.selection].map(same).filter((layer) => layer >= 0));
    next.cursor = same(before.cursor);
    next.detail = same(before.detail);
    this.build();
    if (tab) this.tabs?.open(tab);
    if (next.detail >= 0) this.detail?.refresh();
  }

  /** @param {Status | null} status */
  setStatus(status) {
    this.status.hidden = !status;
    this.status.textContent = status?.text ?? "";
    if (status) this.status.dataset.tone = status.tone;
    this.root.classList.toggle("nv-stale", status?.tone === "stale" || status?.tone === "error");
  }

  teardown() {
    this.detail?.destroy();
    this.detail?.element.remove();
    this.frontier?.destroy();
    this.tooltip.hide();
    this.state.listeners.clear();
  }

  destroy() {
    this.teardown();
    this.observer.disconnect();
    this.themeObserver.disconnect();
    this.darkQuery.removeEventListener("change", this.onTheme);
    window.removeEventListener("beforeprint", this.onPrint);
    window.removeEventListener("afterprint", this.afterPrint);
    this.full.destroy();
    this.root.remove();
  }
}
