// The few shapes of ComfyUI's frontend that the pack relies on, and those of its own events.
// Types only. ComfyUI publishes no types for `app` and `api`; they stay loose.

/** @typedef {{ app: any, api: any }} Comfy ComfyUI's `app` and `api` objects. */

/** @typedef {any} Graph An LGraph or Subgraph. */

/**
 * @typedef {{
 *   name: string,
 *   type: string,
 *   value: any,
 *   callback?: (...args: any[]) => void,
 *   options?: any,
 *   serialize?: boolean,
 *   linkedWidgets?: Widget[],
 * }} Widget
 */

/**
 * An LGraphNode, as far as the pack needs it.
 * @typedef {{
 *   id: string | number,
 *   comfyClass?: string,
 *   title?: string,
 *   graph?: Graph,
 *   size: [number, number],
 *   widgets?: Widget[],
 *   properties: { [name: string]: any },
 *   computeSize: (size?: number[]) => [number, number],
 *   setSize: (size: [number, number]) => void,
 *   setDirtyCanvas: (foreground: boolean, background?: boolean) => void,
 *   addDOMWidget: (name: string, type: string, element: HTMLElement, options: any) => Widget,
 *   removeWidget?: (widget: Widget) => void,
 *   [other: string]: any,
 * }} GraphNode
 */

/** @typedef {{ class_type: string, inputs: { [name: string]: any } }} PromptNode */
/** @typedef {{ [executionId: string]: PromptNode }} Prompt A workflow in API form. */

/**
 * What a node remembers about its report; saved with the workflow as `properties.nvfp4_report`.
 * `inputs` and `seedless` are hashes of everything the node depended on, with and without seeds
 * that change by themselves; null where unknown. `end` says how a later run ended that did not
 * reach the node.
 * @typedef {{
 *   id: string,
 *   at: string,
 *   of: string,
 *   inputs: string | null,
 *   seedless: string | null,
 *   end?: "cancelled" | "failed",
 * }} ReportRecord
 */

/**
 * A button that solves a problem: sets `widget` of this node or of the nearest upstream node of
 * class `node` to `value`.
 * @typedef {{ label: string, node: string, widget: string, value: any }} Remedy
 */

/** @typedef {{ message: string, remedy?: Remedy | null }} Problem */

/** @typedef {import("../view/types.js").LayerView} LayerView */

export {};
