// Problems that ComfyUI finds before a run, in words for the node that has them.

/** @typedef {import("./types.js").Problem} Problem */

/**
 * @typedef {{
 *   type: string,
 *   message: string,
 *   details?: string,
 *   extra_info?: { input_name?: string, input_config?: any, received_value?: any },
 * }} ValidationError
 */

/** @type {{ [type: string]: (input: string, error: ValidationError) => string }} */
const WORDS = {
  required_input_missing: (input) => `Nothing is connected to ${input}.`,
  value_not_in_list: (input, error) =>
    `${input}: “${error.extra_info?.received_value}” is not in the list.`,
  return_type_mismatch: (input, error) =>
    `${input} does not take what is connected to it (${error.details ?? error.message}).`,
};

/** @param {string} input @param {ValidationError} error */
function inWords(input, error) {
  const words = WORDS[error.type];
  if (words && input) return words(input, error);
  const details = error.details ?? "";
  if (error.type === "custom_validation_failed") {
    // "<input> - <what the node said>", once for each input that the node looked at
    return details.includes(" - ") ? details.slice(details.indexOf(" - ") + 3) : details;
  }
  return [error.message, details].filter(Boolean).join(": ");
}

/**
 * Put an unknown choice back to the default, where that is in the list.
 * @param {string} input
 * @param {ValidationError} error
 */
function remedyOf(input, error) {
  if (error.type !== "value_not_in_list" || !input) return null;
  const [list, settings] = error.extra_info?.input_config ?? [];
  const options = Array.isArray(list) ? list : (settings?.options ?? []);
  const choices = options.map((/** @type {any} */ option) => option?.key ?? option);
  const value = choices.length === 1 ? choices[0] : settings?.default;
  if (value === undefined || !choices.includes(value)) return null;
  return { label: `Set ${input} to ${value}`, node: "", widget: input, value };
}

/**
 * The problems of one node from the `node_errors` of a refused workflow.
 * @param {{ errors?: ValidationError[] }} nodeError
 * @returns {Problem[]}
 */
export function problemsOf(nodeError) {
  return (nodeError.errors ?? []).map((error) => {
    const input = error.extra_info?.input_name ?? "";
    return { message: inWords(input, error), remedy: remedyOf(input, error) };
  });
}

/**
 * Wait for the outcome of queueing. ComfyUI announces a workflow that it accepts with an event,
 * and one that it refuses only by its list of errors.
 * @param {any} app
 * @param {any} api
 * @param {(errors: { [executionId: string]: { errors?: ValidationError[] } }) => void} found
 */
export function watchValidation(app, api, found) {
  let timer = /** @type {ReturnType<typeof setInterval> | undefined} */ (undefined);
  const look = () => {
    const errors = app.lastNodeErrors;
    if (!errors || Object.keys(errors).length === 0) return false;
    clearInterval(timer);
    found(errors);
    return true;
  };
  api.addEventListener("promptQueueing", () => {
    clearInterval(timer);
    const end = Date.now() + 60_000;
    timer = setInterval(() => {
      if (!look() && Date.now() > end) clearInterval(timer);
    }, 100);
  });
  api.addEventListener("promptQueued", () => {
    look(); // outputs that are valid run although others are not
    clearInterval(timer);
  });
}
