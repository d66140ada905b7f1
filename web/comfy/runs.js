// Queue runs, as the page hears of them: what ran, what was cached, how it ended.

/** @typedef {import("./types.js").Comfy} Comfy */
/** @typedef {import("./types.js").Prompt} Prompt */

/** @typedef {{ prompt: Prompt, workflow: string | null }} Queued what was queued, and its root id */

/**
 * @typedef {{
 *   id: string,
 *   queued: Promise<Queued | null>,
 *   reached: Set<string>,
 *   executing: string | null,
 * }} Run
 */

/**
 * @typedef {{
 *   started: (run: Run, queued: Queued | null) => void,
 *   executing: (run: Run, queued: Queued | null, node: string | null) => void,
 *   executed: (run: Run, queued: Queued | null, node: string, output: any) => void,
 *   cached: (run: Run, queued: Queued | null, nodes: string[]) => void,
 *   failed: (run: Run, queued: Queued | null, node: string, message: string) => void,
 *   ended: (run: Run, queued: Queued | null, end: "done" | "cancelled" | "failed") => void,
 * }} RunListener
 */

/**
 * Read what was queued under an id. A run that just ended is in the history.
 * @param {any} api
 * @param {string} id
 * @returns {Promise<Queued | null>}
 */
async function readQueued(api, id) {
  /** @type {(reply: any) => any[] | undefined} */
  const inQueue = (reply) =>
    [...(reply.queue_running ?? []), ...(reply.queue_pending ?? [])].find((item) => item[1] === id);
  try {
    const queue = await (await api.fetchApi("/queue")).json();
    let item = inQueue(queue);
    if (!item) item = (await (await api.fetchApi(`/history/${id}`)).json())[id]?.prompt;
    if (!item) return null;
    return { prompt: item[2], workflow: item[3]?.extra_pnginfo?.workflow?.id ?? null };
  } catch (error) {
    console.warn("NVFP4 Foundry: the queued workflow could not be read.", error);
    return null;
  }
}

/**
 * Tell a listener about all runs of this page, in order, each with what was queued.
 * @param {Comfy} comfy
 * @param {RunListener} listener
 * @returns {{
 *   current: () => Run | null,
 *   inOrder: (run: Run, handle: (queued: Queued | null) => void) => void,
 * }} `inOrder` calls back after all that the listener has yet to hear of
 */
export function watchRuns({ api }, listener) {
  /** @type {Run | null} */
  let current = null;
  let last = Promise.resolve();
  /** @param {any} id */
  const runOf = (id) => {
    if (current?.id === id || (current && !id)) return current;
    if (!id) return null;
    const run = { id, queued: readQueued(api, id), reached: new Set(), executing: null };
    current = run;
    inOrder(run, (queued) => listener.started(run, queued));
    return run;
  };
  /**
   * @param {Run} run
   * @param {(queued: Queued | null) => void} handle
   */
  const inOrder = (run, handle) => {
    last = last
      .then(() => run.queued)
      .then(handle)
      .catch((error) => console.error("NVFP4 Foundry:", error));
  };
  /**
   * @param {string} type
   * @param {(run: Run, detail: any) => (queued: Queued | null) => void} handle
   */
  const on = (type, handle) =>
    api.addEventListener(type, (/** @type {CustomEvent} */ { detail }) => {
      const id = typeof detail === "object" ? detail?.prompt_id : undefined;
      const run = runOf(id);
      if (run) inOrder(run, handle(run, detail));
    });

  on("execution_start", () => () => {});
  on("execution_cached", (run, detail) => {
    const nodes = (detail.nodes ?? []).map(String);
    for (const node of nodes) run.reached.add(node);
    return (queued) => listener.cached(run, queued, nodes);
  });
  on("executing", (run, detail) => {
    const node = detail === null || typeof detail === "object" ? null : String(detail);
    run.executing = node;
    return (queued) => listener.executing(run, queued, node);
  });
  on("executed", (run, detail) => {
    const node = String(detail.display_node ?? detail.node);
    run.reached.add(node);
    return (queued) => listener.executed(run, queued, node, detail.output);
  });
  on("execution_error", (run, detail) => {
    run.executing = null;
    return (queued) => {
      listener.failed(run, queued, String(detail.node_id ?? ""), messageOf(detail));
      listener.ended(run, queued, "failed");
    };
  });
  /** @type {(end: "cancelled" | "done") => (run: Run) => (queued: Queued | null) => void} */
  const ended = (end) => (run) => {
    run.executing = null;
    return (queued) => listener.ended(run, queued, end);
  };
  on("execution_interrupted", ended("cancelled"));
  on("execution_success", ended("done"));
  return { current: () => current, inOrder };
}

/** @param {{ exception_message?: string, exception_type?: string }} detail */
function messageOf(detail) {
  return detail.exception_message?.trim() || detail.exception_type || "The node failed.";
}
