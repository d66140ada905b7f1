/**
 * The live panel of a node: how far a calibration or a probe is while it runs.
 *
 * The server sends events named `nvfp4_foundry.live`. Whoever owns the node's widget mounts the
 * panel and passes it the detail of every event of that node. This module changes nothing when it
 * is imported. All text is shown with `textContent`, because names of layers and prompts come from
 * files.
 */

/**
 * @typedef {object} CalibrationDetail
 * @property {string} node id of the Calibrate node
 * @property {"calibration"} kind
 * @property {string} name name of the calibration
 * @property {"sampling" | "done" | "interrupted"} state of the present or latest sampling
 * @property {string} prompt the present prompt, "" without a list of prompts
 * @property {number} prompts_done
 * @property {number} prompts how many prompts the list has, 0 without a list
 * @property {number} steps_done
 * @property {number} steps
 * @property {number} layers_seen layers that received an input in this sampling
 * @property {number} layers
 * @property {number} [runs] runs of the calibration; absent before the first one has ended
 * @property {number} [left_out] interrupted runs that do not count
 * @property {number} [growing] layers whose amax the last run still raised
 * @property {string} [verdict] whether more prompts would change much
 */

/**
 * @typedef {object} ProbeDetail
 * @property {string} node id of the Probe Latent Shift node
 * @property {"probe"} kind
 * @property {"probing" | "done" | "interrupted"} state
 * @property {number} unit the unit that runs, from 1; 0 before the first
 * @property {number} units
 * @property {boolean} [at_most] the probe may end before all units have run
 * @property {string} format
 * @property {string} name of the unit
 * @property {number} steps steps of each short sampling
 * @property {number} known units that were known from an interrupted probe
 * @property {number | null} seconds_left null while unknown
 */

/** @typedef {CalibrationDetail | ProbeDetail} LiveDetail */

/**
 * @typedef {object} Row
 * @property {string} label
 * @property {number} done
 * @property {number} total
 */

/**
 * @typedef {object} Shown
 * @property {string} title
 * @property {Row[]} rows
 * @property {string[]} lines
 */

const STATES = {
  sampling: "sampling",
  probing: "probing",
  done: "done",
  interrupted: "interrupted",
};

const STYLE = {
  panel:
    "box-sizing:border-box;padding:6px 8px;font:12px/1.5 sans-serif;border-radius:4px;" +
    "color:var(--input-text,#ddd);background:var(--comfy-input-bg,#222);overflow:hidden",
  title: "font-weight:600;overflow:hidden;text-overflow:ellipsis;white-space:nowrap",
  row: "display:grid;grid-template-columns:6em 1fr 7em;gap:8px;align-items:center",
  label: "color:var(--descrip-text,#999)",
  track: "height:6px;border-radius:3px;background:var(--border-color,#4e4e4e);overflow:hidden",
  bar: "height:100%;background:var(--p-primary-color,#4f9de8)",
  count: "text-align:right;font-variant-numeric:tabular-nums",
  line: "color:var(--descrip-text,#999);overflow-wrap:anywhere",
};

/**
 * Put a panel into `host`. It is empty and takes no room until the first update.
 *
 * @param {HTMLElement} host
 * @returns {{ update(detail: LiveDetail): void, clear(): void }}
 */
export function mountLive(host) {
  const panel = element(host.ownerDocument, "div", STYLE.panel);
  panel.setAttribute("role", "status");
  panel.hidden = true;
  host.append(panel);
  return {
    update(detail) {
      panel.replaceChildren(...render(host.ownerDocument, describeLive(detail)));
      panel.hidden = false;
    },
    clear() {
      panel.replaceChildren();
      panel.hidden = true;
    },
  };
}

/**
 * Return what the panel shows for an event.
 *
 * @param {LiveDetail} detail
 * @returns {Shown}
 */
export function describeLive(detail) {
  return detail.kind === "probe" ? describeProbe(detail) : describeCalibration(detail);
}

/**
 * @param {CalibrationDetail} detail
 * @returns {Shown}
 */
function describeCalibration(detail) {
  const rows = [
    { label: "prompts", done: detail.prompts_done, total: detail.prompts },
    { label: "steps", done: detail.steps_done, total: detail.steps },
    { label: "layers seen", done: detail.layers_seen, total: detail.layers },
  ].filter((row) => row.total > 0);
  const lines = [];
  if (detail.prompt) lines.push(detail.prompt);
  if (detail.runs !== undefined && detail.runs > 1) {
    lines.push(`${plural(detail.growing ?? 0, "layer")} still growing after ${detail.runs} runs`);
  }
  if (detail.verdict) lines.push(detail.verdict);
  if (detail.left_out) lines.push(`${plural(detail.left_out, "interrupted run")} left out`);
  return { title: `Calibration ${detail.name}: ${STATES[detail.state]}`, rows, lines };
}

/**
 * @param {ProbeDetail} detail
 * @returns {Shown}
 */
function describeProbe(detail) {
  // The unit that runs is not done yet.
  const done = detail.state === "done" ? detail.unit : Math.max(0, detail.unit - 1);
  const lines = [];
  if (detail.state === "probing" && detail.name) lines.push(`${detail.name} in ${detail.format}`);
  if (detail.state === "probing" && detail.seconds_left !== null) {
    lines.push(`${detail.at_most ? "at most " : ""}${duration(detail.seconds_left)} left`);
  }
  if (detail.state === "done" && done < detail.units) {
    lines.push(`${plural(detail.units - done, "unit")} estimated`);
  }
  if (detail.known) lines.push(`${plural(detail.known, "unit")} known from before`);
  if (detail.state === "interrupted") lines.push("queue it again to go on here");
  const title = `Probe in ${plural(detail.steps, "step")}: ${STATES[detail.state]}`;
  return { title, rows: [{ label: "units", done, total: detail.units }], lines };
}

/**
 * Return a duration to read, such as `1 min 20 s`.
 *
 * @param {number} seconds
 * @returns {string}
 */
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const minutes = Math.round(seconds / 60);
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/**
 * @param {number} count
 * @param {string} noun
 * @returns {string}
 */
function plural(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * @param {Document} owner
 * @param {Shown} shown
 * @returns {HTMLElement[]}
 */
function render(owner, shown) {
  return [
    element(owner, "div", STYLE.title, shown.title),
    ...shown.rows.map((row) => renderRow(owner, row)),
    ...shown.lines.map((line) => element(owner, "div", STYLE.line, line)),
  ];
}

/**
 * @param {Document} owner
 * @param {Row} row
 * @returns {HTMLElement}
 */
function renderRow(owner, { label, done, total }) {
  const track = element(owner, "div", STYLE.track);
  track.setAttribute("role", "progressbar");
  track.setAttribute("aria-label", label);
  track.setAttribute("aria-valuemax", String(total));
  track.setAttribute("aria-valuenow", String(done));
  const bar = element(owner, "div", STYLE.bar);
  bar.style.width = `${Math.min(100, (100 * done) / total)}%`;
  track.append(bar);
  const line = element(owner, "div", STYLE.row);
  line.append(
    element(owner, "span", STYLE.label, label),
    track,
    element(owner, "span", STYLE.count, `${done} of ${total}`),
  );
  return line;
}

/**
 * @param {Document} owner
 * @param {string} tag
 * @param {string} style
 * @param {string} [text]
 * @returns {HTMLElement}
 */
function element(owner, tag, style, text) {
  const made = owner.createElement(tag);
  made.style.cssText = style;
  if (text !== undefined) made.textContent = text;
  return made;
}
