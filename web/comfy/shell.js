// Joins the parts: what a run, a loaded workflow or a change of the graph means for the nodes.

import { executions, isOurs, isOurClass, nodeOfExecution, nodeOfLocator } from "./graph.js";
import { applyMigratedValues, migrateWorkflow } from "./migrations.js";
import { Problems } from "./problems.js";
import { removeProgressText } from "./progress_text.js";
import { refreshFileLists } from "./refresh.js";
import { applyRemedy } from "./remedies.js";
import { existingWidget } from "./report_widget.js";
import { Reports } from "./reports.js";
import { watchRuns } from "./runs.js";
import { problemsOf, watchValidation } from "./validation.js";

/** @typedef {import("./types.js").Comfy} Comfy */
/** @typedef {import("./types.js").GraphNode} GraphNode */
/** @typedef {import("./types.js").Problem} Problem */
/** @typedef {import("./runs.js").Queued} Queued */
/** @typedef {import("./runs.js").Run} Run */

export class Shell {
  /** @param {Comfy} comfy */
  constructor(comfy) {
    this.app = comfy.app;
    this.api = comfy.api;
    this.reports = new Reports(comfy);
    this.problems = new Problems();
    /** @type {Set<string>} "<workflow>/<execution id>" of problems that validation found */
    this.refused = new Set();
    /** @type {Map<string, Map<string, "cancelled" | "failed">>} for tabs in the background */
    this.unreached = new Map();
    /** @type {Promise<import("./migrations.js").Migrations> | null} */
    this.migrations = null;
  }

  /** Listen to ComfyUI. Called once, when its page is set up. */
  start() {
    this.runs = watchRuns({ app: this.app, api: this.api }, this);
    watchValidation(this.app, this.api, (errors) => this.refuse(errors));
    this.api.addEventListener("promptQueueing", () => this.forgetRefused());
    this.api.addEventListener("nvfp4_foundry.error", (/** @type {any} */ { detail }) =>
      this.problemReported(detail),
    );
    this.api.addEventListener("nvfp4_foundry.live", (/** @type {any} */ { detail }) =>
      this.live(detail),
    );
    const check = () => this.reports.checkSoon();
    this.api.addEventListener("graphChanged", check);
    for (const type of ["input", "change", "pointerup", "keyup"]) {
      window.addEventListener(type, check, { passive: true });
    }
  }

  /** @returns {string} */
  get workflow() {
    return String(this.app.rootGraph?.id);
  }

  /**
   * The node of an event, if it is ours and in the open workflow.
   * @param {string | number} executionId
   * @param {string | null | undefined} workflow the event's; unknown counts as the open one
   * @returns {GraphNode | null}
   */
  node(executionId, workflow) {
    if (workflow && workflow !== this.workflow) return null;
    const node = nodeOfExecution(this.app.rootGraph, executionId);
    return isOurs(node) ? node : null;
  }

  // Runs -----------------------------------------------------------------------------------------

  /** @param {Run} _run @param {Queued | null} _queued */
  started(_run, _queued) {
    this.unreached.clear();
  }

  /** @param {Run} _run @param {Queued | null} queued @param {string | null} id */
  executing(_run, queued, id) {
    const node = id === null ? null : this.node(id, queued?.workflow);
    this.reports.running.clear();
    if (node && id !== null) {
      this.reports.running.add(node);
      this.clearProblems(queued?.workflow ?? this.workflow, id);
      existingWidget(node)?.setStatus({ text: "Running…", tone: "running" });
    }
    this.reports.checkSoon();
  }

  /** @param {Run} _run @param {Queued | null} queued @param {string} id @param {any} output */
  executed(_run, queued, id, output) {
    const prompt = queued?.prompt ?? null;
    const workflow = queued?.workflow ?? this.workflow;
    if (prompt && !isOurClass(prompt[id]?.class_type)) return;
    this.clearProblems(workflow, id);
    const report = output?.nvfp4_report?.[0];
    if (report?.id && prompt) this.reports.hashes.set(report.id, this.reports.hash(prompt, id));
    if (output?.nvfp4_saved?.length) refreshFileLists(this.app);
    const node = this.node(id, workflow);
    if (!node) return;
    this.reports.running.delete(node);
    removeProgressText(node);
    this.reports.executed(node, output, { executionId: id, prompt });
  }

  /** @param {Run} _run @param {Queued | null} queued @param {string[]} ids */
  cached(_run, queued, ids) {
    for (const id of ids) {
      this.clearProblems(queued?.workflow ?? this.workflow, id);
      const node = this.node(id, queued?.workflow);
      if (node) {
        this.reports.cached(node, { executionId: id, prompt: queued?.prompt ?? null });
      }
    }
  }

  /** @param {Run} run @param {Queued | null} queued @param {string} id @param {string} message */
  failed(run, queued, id, message) {
    run.reached.delete(id);
    if (queued?.prompt && !isOurClass(queued.prompt[id]?.class_type)) return;
    this.addProblem(queued?.workflow ?? this.workflow, id, { message });
  }

  /** @param {Run} run @param {Queued | null} queued @param {"done" | "cancelled" | "failed"} end */
  ended(run, queued, end) {
    this.reports.running.clear();
    this.reports.checkSoon();
    if (!queued) return;
    const workflow = queued.workflow ?? this.workflow;
    if (end === "done") return;
    const left = Object.keys(queued.prompt).filter(
      (id) => isOurClass(queued.prompt[id].class_type) && !run.reached.has(id),
    );
    if (workflow !== this.workflow) {
      this.unreached.set(workflow, new Map(left.map((id) => [id, end])));
      return;
    }
    for (const id of left) {
      const node = this.node(id, workflow);
      if (node) this.reports.notReached(node, end);
    }
  }

  // Problems -------------------------------------------------------------------------------------

  /**
   * The pack's own message about a problem, while a node runs or its inputs are checked.
   * @param {{ node: string, message: string, remedy?: import("./types.js").Remedy | null }} detail
   */
  problemReported({ node, message, remedy }) {
    const run = this.runs?.current();
    const id = String(node);
    if (run && run.executing === id) {
      this.runs?.inOrder(run, (queued) =>
        this.addProblem(queued?.workflow ?? this.workflow, id, { message, remedy }),
      );
      return;
    }
    this.refused.add(`${this.workflow}/${id}`);
    this.addProblem(this.workflow, id, { message, remedy });
  }

  /** @param {{ [executionId: string]: any }} errors */
  refuse(errors) {
    for (const [id, error] of Object.entries(errors)) {
      if (!isOurClass(error.class_type)) continue;
      this.refused.add(`${this.workflow}/${id}`);
      for (const problem of problemsOf(error)) this.addProblem(this.workflow, id, problem);
    }
  }

  /** What validation found before is found again, or solved. */
  forgetRefused() {
    for (const key of this.refused) {
      const at = key.indexOf("/");
      this.clearProblems(key.slice(0, at), key.slice(at + 1));
    }
    this.refused.clear();
  }

  /** @param {string} workflow @param {string} id @param {Problem} problem */
  addProblem(workflow, id, problem) {
    this.problems.add(workflow, id, problem);
    this.showProblems(workflow, id);
  }

  /** @param {string} workflow @param {string} id */
  clearProblems(workflow, id) {
    if (this.problems.clear(workflow, id)) this.showProblems(workflow, id);
  }

  /** @param {string} workflow @param {string} id */
  showProblems(workflow, id) {
    const node = this.node(id, workflow);
    if (!node) return;
    const problems = this.problems.get(workflow, id);
    const widget = problems.length > 0 ? this.reports.widgetFor(node) : existingWidget(node);
    widget?.setProblems(problems, (remedy) => applyRemedy(this.app, id, remedy));
  }

  /** @param {{ node: string }} detail progress of a node */
  live(detail) {
    const run = this.runs?.current();
    if (!run) return;
    this.runs?.inOrder(run, (queued) => {
      const node = this.node(detail.node, queued?.workflow);
      if (node) this.reports.widgetFor(node).showLive(detail);
    });
  }

  // Workflows ------------------------------------------------------------------------------------

  /**
   * @param {any} graph the serialised workflow that is about to be opened
   * @param {any[]} missing node types that ComfyUI does not know
   */
  async beforeConfigureGraph(graph, missing) {
    this.migrations ??= this.api
      .fetchApi("/nvfp4_foundry/migrations")
      .then((/** @type {Response} */ reply) => (reply.ok ? reply.json() : {}))
      .catch(() => ({}));
    const replaced = migrateWorkflow(graph, (await this.migrations) ?? {});
    for (let i = missing.length - 1; i >= 0; i--) {
      if (replaced.includes(missing[i]?.type ?? missing[i])) missing.splice(i, 1);
    }
  }

  /** @param {GraphNode} node @param {any} saved */
  configured(node, saved) {
    applyMigratedValues(node);
    this.reports.configured(node, saved);
  }

  /** A workflow was opened: show the problems and ends of runs that came meanwhile. */
  afterConfigureGraph() {
    const { workflow } = this;
    for (const [id] of this.problems.all(workflow)) this.showProblems(workflow, id);
    for (const [id, end] of this.unreached.get(workflow) ?? []) {
      const node = this.node(id, workflow);
      if (node) this.reports.notReached(node, end);
    }
    this.unreached.delete(workflow);
    this.reports.checkSoon();
  }

  /** @param {{ [locator: string]: any }} outputs that ComfyUI kept for this workflow */
  outputsRestored(outputs) {
    if (!this.app.rootGraph) return;
    const ids = new Map([...executions(this.app.rootGraph)].map(([id, node]) => [node, id]));
    for (const [locator, output] of Object.entries(outputs ?? {})) {
      const node = nodeOfLocator(this.app.rootGraph, locator);
      const id = node ? ids.get(node) : undefined;
      if (node && id !== undefined && isOurs(node)) this.reports.restored(node, output, id);
    }
  }

  /** @param {GraphNode} node */
  removed(node) {
    existingWidget(node)?.destroy();
  }
}
