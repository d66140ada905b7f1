// All styles of the view. Every colour is a property --nvfp4-NAME that a page can set, and falls
// back to those of ComfyUI's theme.
import { UPLOT_STYLE } from "./uplot_style.js";

const ID = "nvfp4-view-style";

/** From this width of a view on, details lie beside the map instead of over it. Pixels. */
export const WIDE = 860;
export const DETAIL_WIDTH = 360;
export const DETAIL_GAP = 10;

export const STYLE = `
.nv-root {
  --nv-bg: var(--nvfp4-bg, var(--comfy-menu-bg, #26272b));
  --nv-surface: var(--nvfp4-surface, var(--comfy-input-bg, #1b1c20));
  --nv-text: var(--nvfp4-text, var(--input-text, #e4e6ea));
  --nv-muted: var(--nvfp4-muted, var(--descrip-text, #a0a4ad));
  --nv-line: var(--nvfp4-line, var(--border-color, #45474f));
  --nv-accent: var(--nvfp4-accent, #3b9cff);
  --nv-accent-ink: var(--nvfp4-accent-ink, #08131f);
  --nv-good: var(--nvfp4-good, #4cc38a);
  --nv-bad: var(--nvfp4-bad, #ff8f6b);
  --nv-warning: var(--nvfp4-warning, #f0b13c);
  --nv-error: var(--nvfp4-error, #ff6b6b);
  position: relative; box-sizing: border-box; width: 100%; height: 100%; min-height: 0;
  container-type: inline-size; overflow: hidden; display: flex; flex-direction: column;
  background: var(--nv-bg); color: var(--nv-text); border-radius: 6px;
  font: 12px/1.4 var(--nvfp4-font, Inter, system-ui, -apple-system, "Segoe UI", Roboto, sans-serif);
  text-align: left; user-select: none; -webkit-user-select: none;
}
.nv-root.nv-light {
  --nv-accent: var(--nvfp4-accent, #0b62d6); --nv-accent-ink: var(--nvfp4-accent-ink, #fff);
  --nv-good: var(--nvfp4-good, #0f7b45); --nv-bad: var(--nvfp4-bad, #b8400f);
  --nv-warning: var(--nvfp4-warning, #b07400); --nv-error: var(--nvfp4-error, #c62828);
}
.nv-root.nv-printing {
  --nv-bg: #fff; --nv-surface: #fff; --nv-text: #1c1e24; --nv-muted: #5f6673; --nv-line: #cbcfd6;
}
.nv-root *, .nv-root *::before, .nv-root *::after { box-sizing: border-box; }
.nv-root [hidden] { display: none !important; }
.nv-root.nv-over { position: fixed; inset: 0; z-index: 100000; border-radius: 0; font-size: 13px; }
.nv-body { flex: 1 1 auto; min-height: 0; overflow: auto; display: flex; flex-direction: column; gap: 8px; padding: 8px 10px 10px; scrollbar-width: thin; }
.nv-body > * { flex: 0 0 auto; }
.nv-muted { color: var(--nv-muted); }
.nv-unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

.nv-head { display: flex; align-items: center; gap: 8px; min-height: 24px; }
.nv-head h2 { margin: 0; font-size: 13px; font-weight: 600; flex: 1 1 auto; min-width: 0; overflow-wrap: anywhere; user-select: text; -webkit-user-select: text; }
.nv-status { display: inline-flex; align-items: center; gap: 6px; padding: 1px 8px; border-radius: 10px; font-size: 11px; background: color-mix(in srgb, var(--nv-tone) 18%, transparent); color: var(--nv-text); }
.nv-status::before { content: ""; width: 7px; height: 7px; flex: none; border-radius: 50%; background: var(--nv-tone); }
.nv-status[data-tone="fresh"] { --nv-tone: var(--nv-good); }
.nv-status[data-tone="stale"] { --nv-tone: var(--nv-warning); }
.nv-status[data-tone="error"] { --nv-tone: var(--nv-error); }
.nv-status[data-tone="running"] { --nv-tone: var(--nv-accent); }
/* What the last run said fades; controls and what the edits make of it do not. */
.nv-stale :is(.nv-tile:not(.nv-edit-tile), .nv-table-box, .nv-text, .nv-detail-parts), .nv-stale:not(.nv-editing) .nv-map { opacity: 0.72; }

.nv-tiles { display: flex; flex-wrap: wrap; gap: 6px; }
.nv-tile { flex: 1 1 auto; min-width: 92px; max-width: 100%; background: var(--nv-surface); border-radius: 5px; padding: 5px 8px 6px; user-select: text; -webkit-user-select: text; }
.nv-roomy { min-width: 150px; }
.nv-tile-label { color: var(--nv-muted); font-size: 11px; line-height: 1.3; overflow-wrap: anywhere; }
.nv-tile-value { font-size: 15px; font-weight: 600; line-height: 1.3; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.nv-tile-detail { width: 0; min-width: 100%; color: var(--nv-muted); font-size: 11px; line-height: 1.3; overflow-wrap: anywhere; }
.nv-good .nv-tile-value { color: var(--nv-good); }
.nv-bad .nv-tile-value { color: var(--nv-bad); }
.nv-edit-tile { outline: 1.5px solid var(--nv-accent); outline-offset: -1.5px; }

.nv-messages { display: flex; flex-direction: column; gap: 4px; }
.nv-message { display: flex; gap: 8px; padding: 5px 8px; border-radius: 4px; border-left: 3px solid var(--nv-tone); background: color-mix(in srgb, var(--nv-tone) 12%, var(--nv-surface)); user-select: text; -webkit-user-select: text; }
.nv-message b { flex: none; color: color-mix(in srgb, var(--nv-tone) 75%, var(--nv-text)); font-weight: 600; }
.nv-message span { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 0; }
.nv-note { --nv-tone: var(--nv-accent); } .nv-warning { --nv-tone: var(--nv-warning); } .nv-error { --nv-tone: var(--nv-error); }

.nv-tabs { display: flex; gap: 2px; border-bottom: 1px solid var(--nv-line); }
.nv-root button { font: inherit; color: inherit; }
.nv-tab { background: none; border: 0; border-bottom: 2px solid transparent; margin-bottom: -1px; padding: 4px 10px; color: var(--nv-muted) !important; cursor: pointer; }
.nv-tab[aria-selected="true"] { color: var(--nv-text) !important; border-bottom-color: var(--nv-accent); }
.nv-tab:hover { color: var(--nv-text) !important; }
.nv-tabs-row { display: flex; align-items: flex-end; }
.nv-tabs-row .nv-tabs { flex: 1 1 auto; }
.nv-tools { display: flex; gap: 4px; border-bottom: 1px solid var(--nv-line); padding-bottom: 3px; }
.nv-root :focus-visible { outline: 2px solid var(--nv-accent); outline-offset: 1px; }

.nv-toolbar, .nv-edit-bar { display: flex; flex-wrap: wrap; align-items: center; gap: 6px 8px; }
.nv-button, .nv-select, .nv-input { height: 24px; padding: 0 8px; border: 1px solid var(--nv-line); border-radius: 4px; background: var(--nv-surface); color: var(--nv-text); font: inherit; }
.nv-button, .nv-select { cursor: pointer; }
.nv-button:hover:not(:disabled), .nv-select:hover { border-color: var(--nv-muted); }
.nv-button:disabled { opacity: 0.45; cursor: default; }
.nv-button[aria-pressed="true"] { border-color: var(--nv-accent); background: color-mix(in srgb, var(--nv-accent) 22%, var(--nv-surface)); }
.nv-primary:not(:disabled) { background: var(--nv-accent); border-color: var(--nv-accent); color: var(--nv-accent-ink) !important; font-weight: 600; }
.nv-icon { width: 26px; padding: 0; display: inline-grid; place-items: center; }
.nv-small { height: 22px; padding: 0 7px; font-size: 11px; }
.nv-input { flex: 0 1 190px; min-width: 90px; user-select: text; -webkit-user-select: text; }
.nv-input::placeholder { color: var(--nv-muted); opacity: 0.8; }
.nv-budget { flex: 0 0 90px; }
.nv-check { display: inline-flex; align-items: center; gap: 5px; cursor: pointer; }
.nv-check input { margin: 0; accent-color: var(--nv-accent); }
.nv-edit-bar { padding: 6px 8px; border-radius: 5px; background: var(--nv-surface); }
.nv-edit-bar .nv-input, .nv-edit-bar .nv-select, .nv-edit-bar .nv-button:not(.nv-primary) { background: var(--nv-bg); }
.nv-edit-bar.nv-in-use { position: sticky; top: -8px; z-index: 10; box-shadow: 0 4px 8px -4px rgba(0, 0, 0, 0.4); }
.nv-edit-note { color: var(--nv-muted); flex: 1 1 150px; font-size: 11px; }

.nv-panels { flex: 1 0 auto !important; display: flex; gap: ${DETAIL_GAP}px; min-height: 200px; }
.nv-plain .nv-panels { min-height: 60px; }
.nv-panel { display: flex; flex-direction: column; gap: 8px; flex: 1 1 auto; min-width: 0; }
.nv-map-scroll { overflow-x: auto; overflow-y: hidden; scrollbar-width: thin; }
.nv-canvas { display: block; touch-action: pan-y; border-radius: 3px; }
.nv-legend { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 14px; font-size: 11px; min-height: 20px; }
.nv-key { display: inline-flex; align-items: center; gap: 6px; background: none; border: 0; padding: 1px 0; border-radius: 3px; }
button.nv-key { cursor: pointer; } button.nv-key:hover { text-decoration: underline; }
.nv-swatch { width: 15px; height: 15px; border-radius: 2px; display: inline-grid; place-items: center; font-size: 10px; font-weight: 600; flex: none; box-shadow: inset 0 0 0 1px color-mix(in srgb, var(--nv-text) 25%, transparent); }
.nv-hatched { background: repeating-linear-gradient(-45deg, transparent 0 3px, var(--nv-muted) 3px 4px); }
.nv-invalid { color: var(--nv-error); box-shadow: inset 0 0 0 2px var(--nv-error); }
.nv-edited { box-shadow: inset 0 0 0 2px var(--nv-accent); }
.nv-scale-box { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 2px 14px; }
.nv-scale { width: 280px; }
.nv-ramp { height: 9px; border-radius: 2px; }
.nv-ticks { position: relative; height: 16px; color: var(--nv-muted); font-variant-numeric: tabular-nums; }
.nv-ticks span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.nv-ticks span[data-end="low"] { transform: none; } .nv-ticks span[data-end="high"] { transform: translateX(-100%); }

.nv-tooltip { position: absolute; left: 0; top: 0; z-index: 30; max-width: min(380px, calc(100% - 8px)); padding: 6px 9px; border-radius: 5px; pointer-events: none; background: var(--nv-surface); border: 1px solid var(--nv-line); box-shadow: 0 4px 14px rgba(0, 0, 0, 0.35); font-size: 11.5px; }
.nv-tip-name { font-weight: 600; overflow-wrap: anywhere; }
.nv-tip-line, .nv-tip-reason { color: var(--nv-muted); overflow-wrap: anywhere; }
.nv-tip-reason { font-style: italic; }
.nv-tip-numbers { display: grid; grid-template-columns: auto auto; gap: 0 14px; margin: 4px 0 0; justify-content: start; }
.nv-tip-numbers dt { color: var(--nv-muted); } .nv-tip-numbers dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
.nv-tip-numbers .nv-own { color: var(--nv-text); font-weight: 600; }

.nv-detail { flex: 0 0 auto; max-height: 46%; overflow: auto; padding: 6px 12px 10px; background: var(--nv-surface); border-top: 1px solid var(--nv-line); user-select: text; -webkit-user-select: text; scrollbar-width: thin; }
.nv-detail header { position: sticky; top: -6px; z-index: 1; margin: -6px 0 2px; padding: 6px 0 2px; background: var(--nv-surface); display: flex; align-items: flex-start; gap: 8px; }
.nv-detail-parts { display: grid; grid-template-columns: repeat(auto-fit, minmax(225px, 1fr)); gap: 8px 20px; align-items: start; }
.nv-detail-parts > * { min-width: 0; }
.nv-detail h3 { flex: 1; margin: 2px 0; font-size: 12.5px; font-weight: 600; overflow-wrap: anywhere; }
.nv-detail h4 { margin: 0 0 3px; font-size: 11px; font-weight: 600; color: var(--nv-muted); }
.nv-detail p { margin: 0 0 6px; overflow-wrap: anywhere; white-space: pre-wrap; }
.nv-close { flex: none; width: 24px; padding: 0; font-size: 15px; line-height: 1; }
.nv-facts { display: grid; grid-template-columns: fit-content(46%) 1fr; gap: 1px 12px; margin: 0; }
.nv-facts dt { color: var(--nv-muted); } .nv-facts dd { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.nv-errors { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.nv-errors th { font-weight: 400; text-align: left; padding: 2px 8px 2px 0; overflow-wrap: anywhere; }
.nv-errors thead th { color: var(--nv-muted); font-size: 11px; }
.nv-errors thead th:not(:first-child), .nv-errors td { text-align: right; padding-left: 8px; }
.nv-errors td { padding: 2px 0 4px 8px; background: linear-gradient(var(--nv-accent), var(--nv-accent)) no-repeat right bottom / 0 3px; }
.nv-errors td.nv-none { background: none; color: var(--nv-muted); }
.nv-errors td.nv-plain-number { background: none; }
.nv-sampled summary { width: max-content; padding: 2px 0; color: var(--nv-muted); cursor: pointer; }
.nv-sampled summary:hover { color: var(--nv-text); }
.nv-sampled table { table-layout: fixed; font-size: 11.5px; } .nv-sampled td, .nv-sampled thead th { white-space: nowrap; }
.nv-sampled thead th:not(:first-child) { width: clamp(96px, 14cqw, 190px); }
.nv-errors tr.nv-own th, .nv-errors tr.nv-own td { font-weight: 600; }
.nv-chart { width: 100%; overflow: hidden; border-radius: 4px; }
.nv-frontier-box { display: flex; flex-direction: column; gap: 4px; background: var(--nv-surface); border-radius: 5px; padding: 8px; }
.nv-frontier-box .nv-input, .nv-frontier-box .nv-select { background: var(--nv-bg); }
.nv-help { margin: 0; font-size: 11px; }

.nv-table-box { position: relative; flex: 1 1 260px; min-height: 220px; display: flex; }
.nv-viewport { position: absolute; inset: 0; overflow: auto; border: 1px solid var(--nv-line); border-radius: 4px; background: var(--nv-surface); scrollbar-width: thin; }
.nv-table { table-layout: fixed; border-collapse: separate; border-spacing: 0; min-width: 100%; font-size: 11.5px; font-variant-numeric: tabular-nums; }
.nv-table th { position: sticky; top: 0; z-index: 2; height: 24px; padding: 0; background: var(--nv-bg); border-bottom: 1px solid var(--nv-line); text-align: left; }
.nv-table th button { width: 100%; height: 100%; padding: 0 8px; border: 0; background: none; text-align: inherit; font-weight: 600; color: var(--nv-muted); cursor: pointer; white-space: nowrap; }
.nv-table th button:hover, .nv-table th:not([aria-sort="none"]) button { color: var(--nv-text); }
.nv-table td { height: 22px; padding: 0 8px; white-space: nowrap; user-select: text; -webkit-user-select: text; }
.nv-table .nv-number { text-align: right; }
.nv-table tbody tr:not(.nv-space) { cursor: pointer; }
.nv-table tbody tr:not(.nv-space):hover td { background: color-mix(in srgb, var(--nv-text) 8%, transparent); }
.nv-table tr.nv-open td { background: color-mix(in srgb, var(--nv-accent) 22%, transparent) !important; }
.nv-table tr.nv-pending td:first-child { box-shadow: inset 3px 0 0 var(--nv-accent); }
.nv-viewport:focus-visible tr.nv-focused td { box-shadow: inset 0 1px 0 var(--nv-accent), inset 0 -1px 0 var(--nv-accent); }
.nv-text-box { display: flex; flex-direction: column; gap: 6px; flex: 1 1 auto; min-width: 0; }
.nv-text { flex: 1 1 auto; container-type: inline-size; max-height: max(200px, calc(var(--nv-height, 100vh) - 64px)); margin: 0; padding: 8px; overflow: auto; background: var(--nv-surface); color: var(--nv-text); border-radius: 4px; font: 11px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre; user-select: text; -webkit-user-select: text; scrollbar-width: thin; unicode-bidi: plaintext; }
.nv-text > div + div { margin-top: 1.4em; }
.nv-text > .nv-words { position: sticky; left: 0; width: calc(100cqw - 16px); white-space: pre-wrap; overflow-wrap: anywhere; }

@container (min-width: ${WIDE}px) {
  .nv-tile { min-width: 130px; } .nv-roomy { min-width: 190px; }
  .nv-tile-value { font-size: 18px; }
  .nv-panels { align-items: flex-start; }
  .nv-panel { align-self: stretch; }
  .nv-detail { position: sticky; top: 0; flex: 0 0 ${DETAIL_WIDTH}px; max-height: calc(var(--nv-height, 100vh) - 20px); border: 1px solid var(--nv-line); border-radius: 5px; }
}

@media print {
  .nv-root, .nv-body { height: auto !important; overflow: visible !important; display: block !important; }
  .nv-body > * { margin-bottom: 10px; }
  .nv-tabs-row, .nv-toolbar, .nv-edit-bar, .nv-detail, .nv-icon, .nv-tooltip, .nv-help { display: none !important; }
  .nv-panels { display: block; }
  .nv-root .nv-panel, .nv-root .nv-panel[hidden] { display: block !important; margin-bottom: 12px; }
  .nv-root:not(.nv-plain) .nv-panel.nv-for-text { display: none !important; }
  .nv-text { white-space: pre-wrap; max-height: none; container-type: normal; } .nv-text > .nv-words { position: static; width: auto; }
  .nv-tile-value { font-size: 14px; }
  .nv-map-scroll { overflow: visible; } .nv-canvas { max-width: 100%; height: auto !important; }
  .nv-table-box, .nv-viewport { position: static; overflow: visible; border: 0; min-height: 0; }
  .nv-table { width: 100% !important; table-layout: auto; font-size: 7px; line-height: 1.25; } .nv-table col { width: auto !important; }
  .nv-table td { height: auto; padding: 1px 4px; vertical-align: top; } .nv-table td.nv-long { white-space: normal; min-width: 80px; }
  .nv-table th { position: static; height: auto; } .nv-table th button { padding: 1px 4px; white-space: normal; font-size: 7px; }
  .nv-table tr { break-inside: avoid; } .nv-tile, .nv-message { break-inside: avoid; }
  .nv-root * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
${UPLOT_STYLE}`;

/**
 * Put the styles into the document or shadow root that an element is in, once.
 * @param {Node} element
 */
export function addStyles(element) {
  const root = element.getRootNode();
  const host = root instanceof ShadowRoot ? root : document.head;
  if (host.querySelector(`#${ID}`)) return;
  const style = document.createElement("style");
  style.id = ID;
  style.textContent = STYLE;
  host.append(style);
}
