// Shows the text that a node of this pack reports (`ui.PreviewText`) inside the node. ComfyUI
// itself does that for its own Preview as Text node only.
import { app } from "../../scripts/app.js";

const PREFIX = "NVFP4Foundry";
const WIDGET = "report_text";
const MIN_WIDTH = 400;
const MIN_HEIGHT = 160;
// For the picture below the report; what it leaves goes to the report.
const PICTURE_HEIGHT = 380;

function addReport(node, hasPicture) {
  // The text lies over its box instead of stretching it, whatever lays the box out.
  const box = document.createElement("div");
  Object.assign(box.style, { position: "relative", height: "100%", minHeight: `${MIN_HEIGHT}px` });
  const text = document.createElement("pre");
  box.append(text);
  Object.assign(text.style, {
    position: "absolute",
    inset: "0",
    margin: "0",
    padding: "4px",
    overflow: "auto",
    whiteSpace: "pre",
    font: "10px/1.15 monospace",
    userSelect: "text",
    color: "var(--input-text, #ddd)",
    background: "var(--comfy-input-bg, #222)",
  });
  // Scroll the text, not the canvas.
  text.addEventListener("wheel", (event) => event.stopPropagation());
  const widget = node.addDOMWidget(WIDGET, "text_report", box, {
    serialize: false, // not part of the prompt
    getMinHeight: () => MIN_HEIGHT,
    getValue: () => text.textContent,
    setValue: (value) => (text.textContent = value),
  });
  widget.serialize = false; // nor of the saved workflow
  const [width, height] = node.computeSize();
  // Widgets that depend on a choice shrink a node while it loads, whatever height was saved.
  const wanted = height + (hasPicture ? PICTURE_HEIGHT : 0);
  node.setSize([Math.max(node.size[0], width, MIN_WIDTH), Math.max(node.size[1], wanted)]);
  return widget;
}

function show(node, output) {
  if (!output?.text) return;
  const widget = node.widgets?.find((w) => w.name === WIDGET) ?? addReport(node, output.images?.length > 0);
  widget.value = [output.text].flat().join("\n\n");
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
