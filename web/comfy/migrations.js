// Workflows saved by an earlier version: nodes get the id and the inputs that they have now. The
// server tells how, and does the same with prompts in API form.

import { setWidget } from "./remedies.js";

/** @typedef {import("./types.js").GraphNode} GraphNode */

/**
 * A widget that was saved by position; the widgets of a dynamic choice depend on it.
 * @typedef {string | { name: string, options: { [choice: string]: string[] } }} SavedWidget
 */

/**
 * @typedef {{
 *   id: string,
 *   widgets: SavedWidget[],
 *   inputs: { [then: string]: string },
 *   values: { [name: string]: any },
 *   switches?: { prefix?: string, input?: string, on?: string[] },
 *   unless?: string,
 * }} Migration
 */

/** @typedef {{ [id: string]: Migration }} Migrations */

const PROPERTY = "nvfp4_migrated_values";

/**
 * Values of widgets by their names of then.
 * @param {Migration} migration
 * @param {any} saved the serialised node
 * @returns {{ [name: string]: any }}
 */
export function valuesByName({ widgets }, saved) {
  if (saved.widgets_values_named) return { ...saved.widgets_values_named };
  const values = saved.widgets_values ?? [];
  if (!Array.isArray(values)) return { ...values };
  /** @type {string[]} */
  const names = [];
  for (const widget of widgets) {
    if (typeof widget === "string") names.push(widget);
    else names.push(widget.name, ...(widget.options[values[names.length]] ?? []));
  }
  return Object.fromEntries(
    names.flatMap((name, i) => (i < values.length ? [[name, values[i]]] : [])),
  );
}

/**
 * The same values by their names of now, with those of inputs that are new.
 * @param {Migration} migration
 * @param {{ [name: string]: any }} values
 */
export function valuesOfNow({ inputs, values: added, switches }, values) {
  /** @type {{ [name: string]: any }} */
  const found = { ...added };
  const prefix = switches?.prefix;
  const chosen = new Map((switches?.on ?? []).map((name) => [name, true]));
  for (const [name, value] of Object.entries(values)) {
    if (prefix && name.startsWith(prefix)) chosen.set(name.slice(prefix.length), Boolean(value));
    else found[inputs[name] ?? name] = value;
  }
  if (prefix && switches?.input) {
    const on = [...chosen].filter(([, isOn]) => isOn).map(([name]) => name);
    found[switches.input] = on.join(", ");
  }
  return found;
}

/**
 * Give a serialised node its id and inputs of now. Its values wait for the node to exist.
 * @param {Migration} migration
 * @param {any} saved the serialised node; changed in place
 */
function migrateNode(migration, saved) {
  saved.properties = {
    ...saved.properties,
    "Node name for S&R": migration.id,
    [PROPERTY]: valuesOfNow(migration, valuesByName(migration, saved)),
  };
  saved.type = migration.id;
  saved.widgets_values = [];
  delete saved.widgets_values_named;
  saved.inputs = (saved.inputs ?? [])
    .filter((/** @type {any} */ input) => !input.widget || input.link != null)
    .map((/** @type {any} */ input) => {
      const name = migration.inputs[input.name] ?? input.name;
      return { ...input, name, ...(input.widget && { widget: { ...input.widget, name } }) };
    });
}

/**
 * @param {any} saved
 * @param {Migrations} migrations
 */
function migrationOf(saved, migrations) {
  const migration = Object.hasOwn(migrations, saved.type) ? migrations[saved.type] : undefined;
  const { unless } = migration ?? {};
  if (!unless) return migration;
  const isNew =
    saved.inputs?.some((/** @type {any} */ input) => input.name === unless) ||
    (saved.widgets_values_named && unless in saved.widgets_values_named);
  return isNew ? undefined : migration;
}

/**
 * Point the widgets that a subgraph shows on its outside at the names of now.
 * @param {any[]} graphs the workflow and the definitions of its subgraphs
 * @param {Map<string, Migration>} changed by subgraph and node
 */
function renamePromoted(graphs, changed) {
  for (const { nodes } of graphs) {
    for (const { type, properties } of nodes ?? []) {
      if (!Array.isArray(properties?.proxyWidgets)) continue;
      for (const proxy of properties.proxyWidgets) {
        const name = changed.get(`${type}/${proxy?.[0]}`)?.inputs[proxy[1]];
        if (name) proxy[1] = name;
      }
    }
  }
}

/**
 * Bring a serialised workflow up to date, the definitions of its subgraphs as well.
 * @param {any} workflow changed in place
 * @param {Migrations} migrations
 * @returns {string[]} the ids of then that were replaced
 */
export function migrateWorkflow(workflow, migrations) {
  const graphs = [workflow, ...(workflow.definitions?.subgraphs ?? [])];
  /** @type {string[]} */
  const replaced = [];
  /** @type {Map<string, Migration>} */
  const changed = new Map();
  for (const graph of graphs) {
    for (const saved of graph.nodes ?? []) {
      const migration = migrationOf(saved, migrations);
      if (!migration) continue;
      replaced.push(saved.type);
      changed.set(`${graph.id}/${saved.id}`, migration);
      migrateNode(migration, saved);
    }
  }
  renamePromoted(graphs, changed);
  return replaced;
}

/**
 * Set the values that waited for the node, those that others depend on first.
 * @param {GraphNode} node
 */
export function applyMigratedValues(node) {
  const values = node.properties?.[PROPERTY];
  if (!values) return;
  delete node.properties[PROPERTY];
  const depth = (/** @type {string} */ name) => name.split(".").length;
  for (const name of Object.keys(values).sort((a, b) => depth(a) - depth(b))) {
    setWidget(node, name, values[name]);
  }
}
