// Elements with text that is never read as HTML.
import { safeText } from "./safe_text.js";

/**
 * @typedef {{
 *   class?: string,
 *   text?: string,
 *   attributes?: { [name: string]: string | number | boolean | null | undefined },
 *   on?: { [event: string]: (event: any) => void },
 * }} Properties
 */

/**
 * Make an element. Texts and attributes are escaped with `safeText`.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Properties} [properties]
 * @param {(Node | null | undefined | false)[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  if (properties.class) element.className = properties.class;
  if (properties.text !== undefined) element.textContent = safeText(properties.text);
  for (const [name, value] of Object.entries(properties.attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, safeText(value));
  }
  for (const [event, listener] of Object.entries(properties.on ?? {})) {
    element.addEventListener(event, listener);
  }
  element.append(.../** @type {Node[]} */ (children.filter(Boolean)));
  return element;
}

/**
 * A push button.
 * @param {string} label
 * @param {() => void} press
 * @param {{ class?: string, title?: string, pressed?: boolean }} [options]
 */
export function button(label, press, options = {}) {
  return el("button", {
    class: `nv-button ${options.class ?? ""}`,
    text: label,
    attributes: {
      type: "button",
      title: options.title,
      "aria-pressed": options.pressed === undefined ? null : String(options.pressed),
    },
    on: { click: press },
  });
}

/**
 * A select menu.
 * @param {string} label for screen readers and the tooltip
 * @param {{ value: string, label: string }[]} choices
 * @param {string} value
 * @param {(value: string) => void} choose
 */
export function menu(label, choices, value, choose) {
  const select = el("select", {
    class: "nv-select",
    attributes: { "aria-label": label, title: label },
    on: { change: () => choose(select.value) },
  });
  for (const choice of choices) {
    const option = el("option", { text: choice.label });
    option.value = choice.value;
    select.append(option);
  }
  select.value = value;
  return select;
}

/**
 * A labelled checkbox.
 * @param {string} label
 * @param {boolean} checked
 * @param {(checked: boolean) => void} change
 * @param {string} [title]
 */
export function checkbox(label, checked, change, title) {
  const input = el("input", {
    attributes: { type: "checkbox" },
    on: { change: () => change(input.checked) },
  });
  input.checked = checked;
  return el("label", { class: "nv-check", attributes: { title } }, input, el("span", { text: label }));
}

/**
 * Where a pointer is inside an element, in the element's own pixels. ComfyUI scales its nodes, so
 * the distances on the screen are not those of the layout.
 * @param {HTMLElement} element
 * @param {{ clientX: number, clientY: number }} pointer
 */
export function localPoint(element, pointer) {
  const box = element.getBoundingClientRect();
  const scale = element.offsetWidth > 0 ? box.width / element.offsetWidth : 1;
  return { x: (pointer.clientX - box.left) / scale, y: (pointer.clientY - box.top) / scale };
}
