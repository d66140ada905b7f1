// Show an element over the whole page. It moves to the end of the document, because ComfyUI
// scales and clips its nodes, and comes back when closed.

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
      this.element.addEventListener("keydown", this.onKey);
    } else {
      this.element.removeEventListener("keydown", this.onKey);
      this.place.replaceWith(this.element);
    }
    this.element.classList.toggle("nv-over", open);
    this.changed(open);
  }

  destroy() {
    if (this.open) this.element.remove();
    this.place.remove();
  }
}
