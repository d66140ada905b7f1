// The one DOM widget of a node of the pack: problems first, then live progress, then the report.

import { mountLive } from "../live.js";
import { mountView } from "../view/mount.js";
import { safeLines } from "../view/safe_text.js";
import { addStyles } from "./styles.js";

/** @typedef {import("./types.js").GraphNode} GraphNode */
/** @typedef {import("./types.js").LayerView} LayerView */
/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {import("./types.js").Remedy} Remedy */
/** @typedef {import("../view/types.js").Status} Status */
/** @typedef {import("../view/types.js").ViewOptions} ViewOptions */

const WIDGET = "nvfp4_report";
const WIDTH = { layers: 560, text: 400 };
const HEIGHT = { layers: 620, leastLayers: 360, text: 220, leastText: 60, live: 150 };
const IMAGE_HEIGHT = 380; // for the picture that ComfyUI draws below the widget
/** The most height of other widgets that would take their part of a tall node, by type. */
const MOST_HEIGHTS = /** @type {{ [type: string]: number }} */ ({ customtext: 130, progressText: 58 });
const MESSAGES_MOST = 240;
const LINE_HEIGHT = 17;
const LINE_CHARACTERS = 52;
const PADDING = 20;

let made = 0; // widgets so far

/** @type {WeakMap<GraphNode, ReportWidget>} */
const widgets = new WeakMap();

/** @param {string} text */
function heightOfText(text) {
  const rows = text.split("\n").map((line) => Math.ceil(line.length / LINE_CHARACTERS) || 1);
  return rows.reduce((sum, count) => sum + count, 0) * LINE_HEIGHT + PADDING;
}

/** @param {Problem} problem */
const heightOfProblem = (problem) =>
  heightOfText(problem.message) + LINE_HEIGHT + (problem.remedy ? 36 : 0) + 6;

/**
 * The widget of a node, if it has one.
 * @param {GraphNode} node
 */
export const existingWidget = (node) => widgets.get(node);

/**
 * The widget of a node; made if it has none.
 * @param {GraphNode} node
 * @param {ViewOptions} options
 */
export function reportWidget(node, options) {
  const known = widgets.get(node);
  if (known) return known;
  const widget = new ReportWidget(node, options);
  widgets.set(node, widget);
  return widget;
}

/** @param {string} name */
function part(name) {
  const element = document.createElement("div");
  element.className = `nvfp4-node-${name}`;
  element.hidden = true;
  return element;
}

/** Keys and wheel turns inside are for what is inside, not for the canvas.
 * @param {HTMLElement} element */
function keepEvents(element) {
  const stop = (/** @type {Event} */ event) => event.stopPropagation();
  const pointer = ["wheel", "pointerdown", "pointermove", "mousedown", "dblclick", "contextmenu"];
  for (const type of [...pointer, "copy", "paste"]) element.addEventListener(type, stop);
  for (const type of ["keydown", "keyup", "keypress"]) {
    element.addEventListener(type, (event) => {
      const { ctrlKey, metaKey, key } = /** @type {KeyboardEvent} */ (event);
      // Undo, save and queue stay ComfyUI's.
      const ours = !(ctrlKey || metaKey) || ["a", "c"].includes(key.toLowerCase());
      if (ours) event.stopPropagation();
    });
  }
}

export class ReportWidget {
  /**
   * @param {GraphNode} node
   * @param {ViewOptions} options
   */
  constructor(node, options) {
    addStyles();
    this.node = node;
    this.options = options;
    /** @type {LayerView | null} */
    this.view = null;
    /** @type {import("../view/types.js").MountedView | null} */
    this.mounted = null;
    /** @type {Status | null} */
    this.status = null;
    /** @type {Problem[]} */
    this.problems = [];
    /** @type {any} */
    this.live = null;
    /** @type {ResizeObserver | undefined} */
    this.seen = undefined;
    this.box = document.createElement("div");
    this.box.className = "nvfp4-node";
    // The content lies over its box instead of stretching it, whatever lays the box out.
    const content = document.createElement("div");
    content.className = "nvfp4-node-content";
    this.problemsHost = part("problems");
    this.problemsHost.setAttribute("role", "alert");
    this.liveHost = part("live");
    this.waitingHost = part("waiting");
    this.viewHost = part("view");
    content.append(this.problemsHost, this.liveHost, this.waitingHost, this.viewHost);
    this.box.append(content);
    keepEvents(this.box);
    // A type of its own: Vue nodes would keep the element of the node that undo replaces.
    this.widget = node.addDOMWidget(WIDGET, `${WIDGET}_${(made += 1)}`, this.box, {
      serialize: false, // not part of the prompt
      hideOnZoom: false,
      getMinHeight: () => this.leastHeight(),
    });
    this.widget.serialize = false; // nor of the saved workflow
    this.limitOthers();
  }

  /** What is left of a tall node goes to the report, not to text boxes. */
  limitOthers() {
    for (const { type, options } of this.node.widgets ?? []) {
      const most = MOST_HEIGHTS[type];
      if (most && options) options.getMaxHeight ??= () => most;
    }
  }

  leastHeight() {
    const problems = this.problems.reduce((sum, one) => sum + heightOfProblem(one), 0);
    const live = this.live ? HEIGHT.live : 0;
    const above = Math.min(problems, 320) + live;
    if (!this.view) return above + (this.waitingHost.hidden ? 0 : HEIGHT.leastText);
    if (this.view.layers) return above + HEIGHT.leastLayers;
    return above + Math.min(HEIGHT.text, Math.max(HEIGHT.leastText, this.textHeight()));
  }

  textHeight() {
    const view = this.view;
    const messages = (view?.messages ?? []).map((message) => message.text).join("\n");
    const tiles = view?.tiles?.length ? 70 : 0;
    return tiles + 44 + heightOfText(`${messages}\n${view?.text ?? ""}`);
  }

  /** The height that a new widget gets: more than the least where there are layers. */
  niceHeight() {
    if (!this.view?.layers) return this.leastHeight();
    const messages = (this.view.messages ?? []).map((message) => message.text).join("\n");
    const above = messages ? Math.min(MESSAGES_MOST, heightOfText(messages)) : 0;
    return this.leastHeight() + HEIGHT.layers - HEIGHT.leastLayers + above;
  }

  /**
   * Grow the node where its content needs it; never shrink what the user has set.
   * @param {{ fresh?: boolean, extra?: number }} grow `fresh`: the content was not there before
   */
  fit({ fresh = false, extra = 0 } = {}) {
    const { node } = this;
    this.limitOthers();
    const least = this.leastHeight();
    this.box.style.minHeight = `${least}px`;
    this.box.dataset.node = String(node.id);
    const [width, height] = node.computeSize();
    const nice = fresh ? this.niceHeight() - least + extra : 0;
    const needed = this.view?.layers ? WIDTH.layers : WIDTH.text;
    const wanted = /** @type {[number, number]} */ ([
      Math.max(node.size[0], width, fresh ? needed : 0),
      Math.max(node.size[1], height + nice),
    ]);
    if (wanted[0] !== node.size[0] || wanted[1] !== node.size[1]) node.setSize(wanted);
    node.setDirtyCanvas(true, true);
  }

  /**
   * Show a report.
   * @param {LayerView} view
   * @param {{ restored?: boolean, images?: number }} from `restored`: the saved size is right
   */
  show(view, { restored = false, images = 0 } = {}) {
    const first = this.view === null;
    this.view = view;
    this.viewHost.hidden = false;
    this.waitingHost.hidden = true;
    if (this.mounted) this.mounted.update(view);
    else this.mountWhenSeen();
    this.fit({ fresh: first && !restored, extra: images > 0 ? IMAGE_HEIGHT : 0 });
  }

  /** The view reads colours and sizes of the page, which its host has once ComfyUI shows it. */
  mountWhenSeen() {
    this.seen ??= new ResizeObserver(() => {
      if (!this.box.isConnected || !this.view || this.mounted) return;
      this.seen?.disconnect();
      this.mounted = mountView(this.viewHost, this.view, this.options);
      this.mounted.setStatus(this.status);
    });
    this.seen.observe(this.box);
  }

  /** Say that a report is on its way, or that it is gone; `null` takes the line away.
   * @param {string | null} text */
  wait(text) {
    this.waitingHost.textContent = text ?? "";
    this.waitingHost.hidden = text === null;
    this.box.style.minHeight = `${this.leastHeight()}px`;
  }

  /** @param {Status | null} status */
  setStatus(status) {
    this.status = status;
    this.mounted?.setStatus(status);
  }

  refreshEdits() {
    this.mounted?.refreshEdits();
  }

  /**
   * Show what is wrong; an empty list takes the messages away.
   * @param {Problem[]} problems
   * @param {(remedy: Remedy) => Promise<string>} apply solves a problem and says what it did
   */
  setProblems(problems, apply) {
    this.problems = problems;
    this.problemsHost.hidden = problems.length === 0;
    this.problemsHost.replaceChildren(...problems.map((problem) => problemElement(problem, apply)));
    if (problems.length === 0 && this.isEmpty()) this.remove();
    else this.fit({ fresh: this.view === null });
  }

  /** Show an event of a run in progress.
   * @param {any} event */
  showLive(event) {
    if (!this.live) {
      this.liveHost.hidden = false;
      this.live = mountLive(this.liveHost);
      this.live.update(event);
      this.fit();
    } else this.live.update(event);
  }

  isEmpty() {
    return this.view === null && this.live === null && this.waitingHost.hidden;
  }

  /** Take the widget off its node. */
  remove() {
    const { node } = this;
    this.destroy();
    if (node.widgets?.includes(this.widget)) {
      const height = node.size[1] - Number(this.box.style.minHeight.replace("px", "") || 0);
      node.removeWidget?.(this.widget);
      node.setSize([node.size[0], Math.max(node.computeSize()[1], height)]);
    }
    node.setDirtyCanvas(true, true);
  }

  destroy() {
    this.seen?.disconnect();
    this.mounted?.destroy();
    this.live?.destroy?.();
    this.mounted = this.live = null;
    widgets.delete(this.node);
  }
}

/**
 * @param {Problem} problem
 * @param {(remedy: Remedy) => Promise<string>} apply
 */
function problemElement(problem, apply) {
  const element = document.createElement("div");
  element.className = "nvfp4-node-problem";
  const mark = document.createElement("b");
  mark.textContent = "Error: ";
  const text = document.createElement("span");
  text.textContent = safeLines(problem.message);
  element.append(mark, text);
  const { remedy } = problem;
  if (remedy) {
    const button = document.createElement("button");
    button.className = "nvfp4-node-remedy";
    button.type = "button";
    button.textContent = safeLines(remedy.label);
    button.addEventListener("click", async () => {
      button.disabled = true;
      text.textContent = safeLines(await apply(remedy));
      element.classList.add("solved");
      button.remove();
    });
    element.append(button);
  }
  return element;
}
