/** ComfyUI's page: its app (graph, canvas, dialogs) and its api (the server). The only module that imports them. */

import { app } from "../../../../scripts/app.js";
import { api } from "../../../../scripts/api.js";

export { api, app };

const TITLE = "Noise Search";
const LIFE = 6000; // ms that a message is shown

/**
 * Show a short message in a corner of the page.
 * @param {Comfy.Severity} severity Color and icon.
 * @param {string} detail The text.
 * @param {{title?: string, life?: number}} [options] Its heading, and the milliseconds until it disappears.
 */
export function showMessage(severity, detail, { title = TITLE, life = LIFE } = {}) {
  app.extensionManager.toast.add({ severity, summary: title, detail, life });
}

/**
 * Ask the user to confirm something.
 * @param {string} title The question.
 * @param {string} message What follows from a yes.
 * @returns {Promise<boolean>} Whether the user confirmed.
 */
export async function confirmed(title, message) {
  const { dialog } = app.extensionManager;
  if (!dialog?.confirm) return window.confirm(`${title}\n${message}`); // early frontends
  return Boolean(await dialog.confirm({ title, message }));
}

/**
 * Ask the user for a text.
 * @param {string} message The question.
 * @param {string} defaultValue What the field holds at first.
 * @returns {Promise<string|null>} The text; null if the user cancelled.
 */
export async function askForText(message, defaultValue) {
  return (await app.extensionManager.dialog.prompt({ title: TITLE, message, defaultValue })) ?? null;
}
