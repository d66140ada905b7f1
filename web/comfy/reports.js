// Which report a node shows and whether it still holds. What a node remembers is saved with the
// workflow; the report itself is kept by the server.

import { addRuleLines, onWidgetChange, setBudget } from "./editing.js";
import { executionIdsOf, executions, isOurs, keyOf, nodeOfExecution } from "./graph.js";
import { existingWidget, reportWidget } from "./report_widget.js";
import { hashInputs, inputsChanged, seeds } from "./staleness.js";
import { acceptQuietly, trackerOf } from "./undo.js";

/** @typedef {import("./types.js").Comfy} Comfy */
/** @typedef {import("./types.js").GraphNode} GraphNode */
/** @typedef {import("./types.js").LayerView} LayerView */
/** @typedef {import("./types.js").Prompt} Prompt */
/** @typedef {import("./types.js").ReportRecord} ReportRecord */
/** @typedef {import("../view/types.js").Status} Status */

const PROPERTY = "nvfp4_report";
const MOST_VIEWS = 60; // kept in the page
const CHECK_DELAY = 400; // ms after a change of the graph

const EARLIER = "From an earlier run";
const REASONS = {
  cancelled: "the last run was cancelled before this node",
  failed: "the last run failed before this node",
  changed: "the inputs changed since this run",
};

export class Reports {
  /** @param {Comfy} comfy */
  constructor({ app, api }) {
    this.app = app;
    this.api = api;
    /** @type {Map<string, LayerView>} by report id */
    this.views = new Map();
    /** @type {Map<string, ReportRecord>} the newest record of each node, by key */
    this.latest = new Map();
    /** @type {Map<string, { inputs: string | null, seedless: string | null }>} by report id */
    this.hashes = new Map();
    /** @type {Set<string>} "<key> <report id>": made or confirmed by a run that this page saw */
    this.confirmed = new Set();
    /** @type {Set<GraphNode>} nodes that a run is working on */
    this.running = new Set();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.checkTimer = undefined;
  }

  /**
   * @param {GraphNode} node
   * @returns {ReportRecord | undefined}
   */
  recordOf(node) {
    const record = node.properties?.[PROPERTY];
    return typeof record?.id === "string" ? record : undefined;
  }

  /**
   * The widget of a node, with what it needs to edit the node's widgets.
   * @param {GraphNode} node
   */
  widgetFor(node) {
    const known = existingWidget(node);
    if (known) return known;
    const { app } = this;
    const edited = () => made.view?.edit?.widget ?? "rules";
    const made = reportWidget(node, {
      onRules: (lines) => addRuleLines(app, node, edited(), lines),
      rules: () => String(node.widgets?.find((w) => w.name === edited())?.value ?? ""),
      onBudget: (budget) => setBudget(app, node, budget),
      fileName: String(node.title ?? "report").replace(/[^\w.-]+/g, "_"),
    });
    onWidgetChange(node, "rules", () => made.refreshEdits());
    return made;
  }

  /**
   * Take over what a node sent: its view and the record of its report.
   * @param {GraphNode} node
   * @param {any} output of the node
   * @param {{ executionId: string, prompt: Prompt | null }} run `prompt`: what was queued, if known
   */
  executed(node, output, { executionId, prompt }) {
    const sent = output?.nvfp4_view?.[0];
    const report = output?.nvfp4_report?.[0];
    if (!sent || !report?.id) return;
    const view = JSON.parse(sent);
    this.keepView(report.id, view);
    if (prompt) this.hashes.set(report.id, this.hash(prompt, executionId));
    const known = this.hashes.get(report.id) ?? { inputs: null, seedless: null };
    /** @type {ReportRecord} */
    const record = { id: report.id, at: report.at, of: executionId, ...known };
    this.confirmed.add(`${keyOf(node)} ${record.id}`);
    const widget = this.widgetFor(node);
    widget.wait(null);
    widget.show(view, { images: output.images?.length ?? 0 });
    this.setRecord(node, record);
    this.checkSoon();
  }

  /**
   * A run found that a node need not run again. That confirms its report if the report was made
   * from the same inputs.
   * @param {GraphNode} node
   * @param {{ executionId: string, prompt: Prompt | null }} run
   */
  cached(node, { executionId, prompt }) {
    const record = this.recordOf(node);
    if (!record || !prompt || inputsChanged(this.app, record, prompt, executionId)) return;
    this.confirmed.add(`${keyOf(node)} ${record.id}`);
    if (record.end) this.setRecord(node, { ...record, end: undefined });
    this.checkSoon();
  }

  /**
   * A run ended before it reached a node.
   * @param {GraphNode} node
   * @param {"cancelled" | "failed"} end
   */
  notReached(node, end) {
    const record = this.recordOf(node);
    if (record && record.end !== end) this.setRecord(node, { ...record, end });
    this.checkSoon();
  }

  /**
   * Save a record with the workflow, as no step of undo.
   * @param {GraphNode} node
   * @param {ReportRecord} record
   */
  setRecord(node, record) {
    if (record.end === undefined) delete record.end;
    node.properties[PROPERTY] = record;
    this.latest.set(keyOf(node), record);
    acceptQuietly(this.app, node, PROPERTY);
  }

  /**
   * ComfyUI has set up a node from a saved workflow: show its report again.
   * @param {GraphNode} node
   * @param {any} saved the serialised node
   */
  configured(node, saved) {
    const newest = this.latest.get(keyOf(node));
    // Undo brings back an older state of the workflow, but no older run.
    if (newest && trackerOf(this.app)?._restoringState) node.properties[PROPERTY] = newest;
    const record = this.recordOf(node);
    if (!record) return;
    const widget = this.widgetFor(node);
    const view = this.views.get(record.id);
    if (view) widget.show(view, { restored: true });
    else {
      widget.wait("Loading the report of an earlier run…");
      this.fetchView(node, record);
    }
    keepSize(node, saved);
    this.checkSoon();
  }

  /**
   * Outputs that ComfyUI kept, as it does for tabs in the background.
   * @param {GraphNode} node
   * @param {any} output
   * @param {string} executionId
   */
  restored(node, output, executionId) {
    const report = output?.nvfp4_report?.[0];
    const record = this.recordOf(node);
    if (!report?.id || (record && record.at >= report.at)) return;
    const seen = this.hashes.has(report.id);
    this.executed(node, output, { executionId, prompt: null });
    if (!seen) this.confirmed.delete(`${keyOf(node)} ${report.id}`);
  }

  /**
   * @param {Prompt} prompt
   * @param {string} id
   */
  hash(prompt, id) {
    return { inputs: hashInputs(prompt, id), seedless: hashInputs(prompt, id, seeds()) };
  }

  /**
   * @param {string} id
   * @param {LayerView} view
   */
  keepView(id, view) {
    this.views.delete(id);
    this.views.set(id, view);
    const [oldest] = this.views.keys();
    if (this.views.size > MOST_VIEWS) this.views.delete(oldest);
  }

  /**
   * @param {GraphNode} node
   * @param {ReportRecord} record
   */
  async fetchView(node, record) {
    const stillWanted = () => this.recordOf(node)?.id === record.id && existingWidget(node);
    try {
      const reply = await this.api.fetchApi(
        `/nvfp4_foundry/reports/${encodeURIComponent(record.id)}`,
      );
      if (!stillWanted()) return;
      if (!reply.ok) {
        this.widgetFor(node).wait("The report of the earlier run is no longer kept. Queue again.");
        return;
      }
      const { view } = await reply.json();
      this.keepView(record.id, view);
      if (stillWanted()) this.widgetFor(node).show(view, { restored: true });
    } catch (error) {
      if (stillWanted()) this.widgetFor(node).wait(`The report could not be read: ${error}`);
    }
  }

  /** Look at all reports again once the graph has come to rest. */
  checkSoon() {
    clearTimeout(this.checkTimer);
    this.checkTimer = setTimeout(() => this.check(), CHECK_DELAY);
  }

  async check() {
    const nodes = new Set([...executions(this.app.rootGraph)].map(([, node]) => node));
    const shown = [...nodes].filter((node) => isOurs(node) && this.recordOf(node));
    if (shown.length === 0 || this.app.configuringGraph) return;
    const { output } = await this.app.graphToPrompt();
    for (const node of shown) existingWidget(node)?.setStatus(this.statusOf(node, output));
  }

  /**
   * @param {GraphNode} node
   * @param {Prompt} prompt the workflow as it would be queued now
   * @returns {Status | null}
   */
  statusOf(node, prompt) {
    if (this.running.has(node)) return { text: "Running…", tone: "running" };
    const record = this.recordOf(node);
    if (!record) return null;
    const own = nodeOfExecution(this.app.rootGraph, record.of) === node;
    const id = own ? record.of : executionIdsOf(this.app.rootGraph, node)[0];
    const changed = id !== undefined && inputsChanged(this.app, record, prompt, id);
    const reason = record.end ?? (changed ? "changed" : null);
    if (reason) return { text: `${EARLIER}: ${REASONS[reason]}.`, tone: "stale" };
    if (this.confirmed.has(`${keyOf(node)} ${record.id}`)) return null;
    return { text: `${EARLIER}.`, tone: "stale" };
  }
}

/**
 * Give a node the size that it was saved with: DynamicCombos shrink a node while it loads.
 * @param {GraphNode} node
 * @param {any} saved
 */
function keepSize(node, saved) {
  const size = saved?.size;
  const [width, height] = Array.isArray(size) ? size : [size?.[0], size?.[1]];
  if (!(width > 0 && height > 0)) return;
  const least = node.computeSize();
  node.setSize([Math.max(width, least[0]), Math.max(height, least[1])]);
}
