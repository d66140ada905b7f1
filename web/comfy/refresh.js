// After a node saved a file, every node's list of files offers it.

let pending = /** @type {ReturnType<typeof setTimeout> | undefined} */ (undefined);

/**
 * Read the node definitions again, once for several files saved together.
 * @param {any} app
 */
export function refreshFileLists(app) {
  clearTimeout(pending);
  pending = setTimeout(() => {
    // `refreshComboInNodes` does the same and shows two notifications.
    const refreshed = app.reloadNodeDefs?.() ?? app.refreshComboInNodes?.();
    Promise.resolve(refreshed).catch((error) => console.warn("NVFP4 Foundry:", error));
  }, 300);
}
