// Styles of what surrounds the view in a node: errors, remedies, the panel itself.

const ID = "nvfp4-foundry-node-styles";

const STYLES = `
.nvfp4-node { position: relative; box-sizing: border-box; width: 100%; height: 100%; }
.nvfp4-node-content {
  position: absolute; inset: 0; display: flex; flex-direction: column; gap: 6px;
  overflow: hidden; font: 12px/1.4 Inter, system-ui, sans-serif; color: var(--input-text, #ddd);
  cursor: default; user-select: text;
}
.nvfp4-node-content [hidden] { display: none !important; }
.nvfp4-node-problems {
  flex: 0 1 auto; min-height: 40px; overflow: auto; display: flex; flex-direction: column; gap: 6px;
}
.nvfp4-node-problem {
  box-sizing: border-box; padding: 8px 10px; border-radius: 6px; border: 1px solid #d03b3b;
  background: color-mix(in srgb, #d03b3b 14%, var(--comfy-input-bg, #222));
  white-space: pre-wrap; overflow-wrap: anywhere;
}
.nvfp4-node-problem.solved {
  border-color: #2f9e44;
  background: color-mix(in srgb, #2f9e44 14%, var(--comfy-input-bg, #222));
}
.nvfp4-node-problem > b { color: color-mix(in srgb, #e03131 70%, var(--input-text, #ddd)); }
.nvfp4-node-problem.solved > b { display: none; }
.nvfp4-node-remedy {
  display: block; margin-top: 8px; padding: 4px 12px; border-radius: 6px; cursor: pointer;
  border: 1px solid var(--border-color, #555); font: inherit; font-weight: 600;
  color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #333); max-width: 100%;
  overflow-wrap: anywhere; text-align: start;
}
.nvfp4-node-remedy:hover { border-color: currentColor; }
.nvfp4-node-remedy:focus-visible { outline: 2px solid currentColor; outline-offset: 1px; }
.nvfp4-node-live { flex: 0 1 auto; min-height: 60px; overflow: auto; }
.nvfp4-node-waiting { padding: 8px 10px; color: var(--descrip-text, #999); }
.nvfp4-node-view { flex: 1 1 240px; min-height: 0; position: relative; }
`;

// In Vue nodes, widgets that can grow share what is left of a tall node. All of it is for the
// report: its row grows, the rows before it do not.
const MOST_ROWS = 40;
const ROWS = Array.from(
  { length: MOST_ROWS },
  (_, before) =>
    `.lg-node-widgets:has(> .lg-node-widget:nth-child(${before + 1}) .nvfp4-node) {
  grid-template-rows: ${before > 0 ? `repeat(${before}, min-content) ` : ""}1fr !important;
}`,
).join("\n");

/** Put the styles into the document, once. */
export function addStyles() {
  if (document.getElementById(ID)) return;
  const style = document.createElement("style");
  style.id = ID;
  style.textContent = STYLES + ROWS;
  document.head.append(style);
}
