// The standalone page: one view over the whole window, light or dark as the reader's system is.
import { mountView } from "./mount.js";
import { safeText } from "./safe_text.js";

const DATA = "nvfp4-view";

const PAGE_STYLE = `
html, body { margin: 0; height: 100%; }
:root {
  color-scheme: light dark;
  --nvfp4-bg: #f6f7f9; --nvfp4-surface: #ffffff; --nvfp4-text: #1c1e24; --nvfp4-muted: #5a6170;
  --nvfp4-line: #d3d7de; --nvfp4-accent: #0b62d6; --nvfp4-accent-ink: #ffffff; --nvfp4-good: #0f7b45;
  --nvfp4-bad: #b8400f; --nvfp4-warning: #b07400; --nvfp4-error: #c62828;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --nvfp4-bg: #17181c; --nvfp4-surface: #212329; --nvfp4-text: #e6e8ec; --nvfp4-muted: #a2a8b3;
    --nvfp4-line: #3b3e47; --nvfp4-accent: #4da3ff; --nvfp4-accent-ink: #08131f; --nvfp4-good: #4cc38a;
    --nvfp4-bad: #ff8f6b; --nvfp4-warning: #f0b13c; --nvfp4-error: #ff6b6b;
  }
}
body { background: var(--nvfp4-bg); }
#nvfp4-page { height: 100vh; max-width: 1500px; margin: 0 auto; }
@media print { html, body, #nvfp4-page { height: auto; } @page { size: landscape; margin: 10mm; } body { background: #fff; } }
`;

/** Mount the view that the document holds as JSON. */
export function openPage() {
  const data = document.getElementById(DATA);
  if (!data) throw new Error(`the page has no element #${DATA}`);
  const view = JSON.parse(data.textContent ?? "");
  const style = document.createElement("style");
  style.textContent = PAGE_STYLE;
  document.head.append(style);
  document.title = safeText(view.title) || document.title;
  const host = document.createElement("main");
  host.id = "nvfp4-page";
  document.body.append(host);
  return mountView(host, view, { fileName: view.title });
}
