// Tabs as the accessibility guides describe them: arrow keys move between them.
import { el } from "./dom.js";

/** @typedef {{ id: string, label: string, panel: HTMLElement }} Tab */

let made = 0;

export class Tabs {
  /**
   * @param {Tab[]} tabs
   * @param {(id: string) => void} opened
   */
  constructor(tabs, opened) {
    this.tabs = tabs;
    this.opened = opened;
    made += 1;
    this.buttons = tabs.map(({ id, label, panel }) => {
      panel.id = `nv-panel-${made}-${id}`;
      panel.setAttribute("role", "tabpanel");
      const tab = el("button", {
        class: "nv-tab",
        text: label,
        attributes: { type: "button", role: "tab", id: `nv-tab-${made}-${id}`, "aria-controls": panel.id },
        on: { click: () => this.open(id) },
      });
      panel.setAttribute("aria-labelledby", tab.id);
      return tab;
    });
    this.element = el("div", { class: "nv-tabs", attributes: { role: "tablist" }, on: { keydown: (event) => this.key(event) } }, ...this.buttons);
    this.current = tabs[0]?.id ?? "";
  }

  /** @param {string} id */
  open(id) {
    this.current = this.tabs.some((tab) => tab.id === id) ? id : (this.tabs[0]?.id ?? "");
    this.tabs.forEach(({ id: own, panel }, i) => {
      const open = own === this.current;
      panel.hidden = !open;
      this.buttons[i].setAttribute("aria-selected", String(open));
      this.buttons[i].tabIndex = open ? 0 : -1;
    });
    this.opened(this.current);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!step) return;
    const at = this.tabs.findIndex((tab) => tab.id === this.current);
    const next = (at + step + this.tabs.length) % this.tabs.length;
    this.open(this.tabs[next].id);
    this.buttons[next].focus();
    event.preventDefault();
    event.stopPropagation();
  }
}
