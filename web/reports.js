// Shows the text that a node of this pack reports (`ui.PreviewText`) inside the node. ComfyUI
// itself does that for its own Preview as Text node only.
import { app } from "../../scripts/app.js";

const PREFIX = "NVFP4Foundry";
const WIDGET = "report_text";
const MIN_WIDTH = 400;
const MIN_HEIGHT = 160;
// A report of few lines takes no more room than they need.
const LINE_HEIGHT = 11.5;
const LINE_CHARACTERS = 60;
const PADDING = 36; // margins and a scroll bar
// For the picture below the report; what it leaves goes to the report.
const PICTURE_HEIGHT = 380;

// Long lines are wrapped, but not where a table would fall apart.
const hasTable = (text) => /^-{10,}$/m.test(text);

function leastHeight(text) {
  const rows = text.split("\n").map((line) => Math.ceil(line.length / LINE_CHARACTERS) || 1);
  const lines = hasTable(text) ? rows.length : rows.reduce((sum, count) => sum + count, 0);
  return Math.min(MIN_HEIGHT, Math.ceil(lines * LINE_HEIGHT) + PADDING);
}

function addReport(node) {
  // The text lies over its box instead of stretching it, whatever lays the box out.
  const box = document.createElement("div");
  Object.assign(box.style, { position: "relative", height: "100%" });
  const text = document.createElement("pre");
  box.append(text);
  Object.assign(text.style, {
    position: "absolute",
    inset: "0",
    margin: "0",
    padding: "4px",
    overflow: "auto",
    overflowWrap: "anywhere",
    font: "10px/1.15 monospace",
    userSelect: "text",
    color: "var(--input-text, #ddd)",
    background: "var(--comfy-input-bg, #222)",
  });
  // Scroll the text, not the canvas.
  text.addEventListener("wheel", (event) => event.stopPropagation());
  const widget = node.addDOMWidget(WIDGET, "text_report", box, {
    serialize: false, // not part of the prompt
    getMinHeight: () => leastHeight(text.textContent),
    getValue: () => text.textContent,
    setValue: (value) => {
      text.textContent = value;
      text.style.whiteSpace = hasTable(value) ? "pre" : "pre-wrap";
      box.style.minHeight = `${leastHeight(value)}px`;
    },
  });
  widget.serialize = false; // nor of the saved workflow
  return widget;
}

function show(node, output) {
  if (!output?.text) return;
  const shown = node.widgets?.find((w) => w.name === WIDGET);
  const widget = shown ?? addReport(node);
  widget.value = [output.text].flat().join("\n\n");
  const picture = !shown && output.images?.length > 0 ? PICTURE_HEIGHT : 0;
  // Widgets that depend on a choice shrink a node while it loads, whatever height was saved.
  const [width, height] = node.computeSize();
  node.setSize([
    Math.max(node.size[0], width, MIN_WIDTH),
    Math.max(node.size[1], height + picture),
  ]);
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "NVFP4Foundry.reports",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith(PREFIX)) return;
    const onExecuted = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.call(this, output);
      show(this, output);
    };
  },
  // Outputs come back without a run when the tab of a workflow is opened again.
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) {
      const node = app.graph.getNodeById(id);
      if (node?.comfyClass?.startsWith(PREFIX)) show(node, output);
    }
  },
});
