// Show an element over the whole page. It moves to the end of the document, because ComfyUI
// scales and clips its nodes, and comes back when closed.

import { button } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const OUTWARDS = "M2 6V2h4M10 2h4v4M14 10v4h-4M6 14H2v-4";
const INWARDS = "M6 2v4H2M14 6h-4V2M10 14v-4h4M2 10h4v4";

/**
 * Corners that point out, or in while the full screen is open.
 * @param {boolean} open
 */
export function frameIcon(open) {
  const icon = document.createElementNS(SVG, "svg");
  icon.setAttribute("viewBox", "0 0 16 16");
  icon.setAttribute("width", "14");
  icon.setAttribute("height", "14");
  icon.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", open ? INWARDS : OUTWARDS);
  path.setAttribute("fill", "none");
  path.setAttribute("stroke", "currentColor");
  path.setAttribute("stroke-width", "1.6");
  icon.append(path);
  return icon;
}

/** @param {() => void} press */
export function fullButton(press) {
  const made = button("", press, { class: "nv-icon", title: "Full screen" });
  made.setAttribute("aria-label", "Full screen");
  made.append(frameIcon(false));
  return made;
}

export class FullScreen {
  /**
   * @param {HTMLElement} element
   * @param {(open: boolean) => void} changed
   */
  constructor(element, changed) {
    this.element = element;
    this.changed = changed;
    this.place = document.createComment("nvfp4 view");
    this.open = false;
    /** @param {KeyboardEvent} event */
    this.onKey = (event) => {
      if (event.key !== "Escape" || event.defaultPrevented) return;
      event.stopPropagation();
      this.toggle(false);
    };
  }

  /** @param {boolean} [open] */
  toggle(open = !this.open) {
    if (open === this.open) return;
    this.open = open;
    if (open) {
      this.element.before(this.place);
      document.body.append(this.element);
      document.addEventListener("keydown", this.onKey);
    } else {
      document.removeEventListener("keydown", this.onKey);
      this.place.replaceWith(this.element);
    }
    this.element.classList.toggle("nv-over", open);
    this.changed(open);
  }

  destroy() {
    document.removeEventListener("keydown", this.onKey);
    if (this.open) this.element.remove();
    this.place.remove();
  }
}
