// The shape of the data that the view shows. Types only; see docs/architecture.md.

/**
 * A column of repeated strings: value `i` is `of[at[i]]`.
 * @typedef {{ of: string[], at: number[] }} Coded
 */

/** @typedef {"log" | "linear" | "category"} ScaleKind */

/**
 * Something to colour the map by. Values with unit "%" are fractions: 0.08 is 8%.
 * @typedef {{ id: string, label: string, unit: "%" | "B" | "", scale: ScaleKind, help: string }}
 * Measure
 */

/** @typedef {{ label: string, value: string, detail?: string, tone?: "good" | "bad" }} Tile */
/** @typedef {{ level: "note" | "warning" | "error", text: string }} Message */
/** @typedef {(number | null)[]} Numbers */

/**
 * One entry per layer in every column. `container` and `block` are -1 outside of blocks.
 * @typedef {{
 *   name: string[],
 *   container: number[],
 *   block: number[],
 *   row: Coded,
 *   kind: Coded,
 *   shape: Coded,
 *   format?: Coded,
 *   reason?: Coded,
 *   remarks?: Coded,
 *   values: { [measure: string]: Numbers },
 * }} LayerColumns
 */

/**
 * Errors per layer of one format, where measured.
 * @typedef {{ w4a16?: Numbers, w4a4?: Numbers, weight?: Numbers, latent?: Numbers }} FormatErrors
 */

/**
 * Amax of a layer's input over sigma, the lowest sigma first; one list per CFG branch.
 * @typedef {{ sigma: number[], cond?: Numbers, uncond?: Numbers, unknown?: Numbers }} Curve
 */

/**
 * What the browser needs to give layers another format. `sizes` holds stored bytes by key and
 * format; a format that is missing there cannot store such a layer, which then stays as it is.
 * `rules` is the text of the rule widget when the view was made.
 * @typedef {{
 *   widget: string,
 *   formats: string[],
 *   sizes: { [key: string]: { [format: string]: number } },
 *   size_of: number[],
 *   keys: string[],
 *   bits: { [format: string]: number },
 *   rules?: string,
 *   unquantized?: string[],
 * }} Edit
 */

/**
 * @typedef {{ bytes: number, bits: number, error: number, counts: { [format: string]: number } }}
 * FrontierPoint
 */

/**
 * A mix that was sampled with all of its layers quantized; null: the result was not finite.
 * @typedef {FrontierPoint & { shift: number | null, is_preset: boolean }} SampledPoint
 */

/**
 * @typedef {{
 *   points: FrontierPoint[],
 *   mix: FrontierPoint,
 *   preset?: (FrontierPoint & { name: string }) | null,
 *   sampled?: SampledPoint[],
 *   label: string,
 *   budget: { kind: string, value: number | null },
 * }} Frontier
 */

/**
 * @typedef {{
 *   version: number,
 *   kind: string,
 *   title: string,
 *   tiles: Tile[],
 *   messages: Message[],
 *   text: string,
 *   containers: { name: string, count: number }[],
 *   layers?: LayerColumns | null,
 *   measures: Measure[],
 *   errors?: { [format: string]: FormatErrors } | null,
 *   inputs?: { of: number[], curves: Curve[] } | null,
 *   edit?: Edit | null,
 *   frontier?: Frontier | null,
 * }} LayerView
 */

/** @typedef {{ kind: "size" | "bits" | "error", value: number }} Budget */

/**
 * @typedef {{
 *   onRules?: (lines: string[]) => void,
 *   rules?: () => string,
 *   onBudget?: (budget: Budget) => void,
 *   fileName?: string,
 * }} ViewOptions
 */

/** @typedef {{ text: string, tone: "fresh" | "stale" | "error" | "running" }} Status */

/**
 * @typedef {{
 *   update: (view: LayerView) => void,
 *   setStatus: (status: Status | null) => void,
 *   refreshEdits: () => void,
 *   destroy: () => void,
 * }} MountedView
 */

export {};
