/** Requests to ComfyUI's server. */

import { api } from "./page.js";

const ROUTES = "/noise_search"; // of this pack

/**
 * The address of one of this pack's routes, for an element that loads it.
 * @param {string} path Path of the route, below the pack's own.
 * @returns {string}
 */
export function routeURL(path) {
  return api.apiURL(ROUTES + path);
}

/**
 * GET one of this pack's routes.
 * @param {string} path Path of the route, below the pack's own.
 * @returns {Promise<Response>} Its answer; an error if it refuses.
 */
export function getRoute(path) {
  return accepted(api.fetchApi(ROUTES + path));
}

/**
 * POST to one of this pack's routes.
 * @param {string} path Path of the route, below the pack's own.
 * @param {object} body What is sent, as JSON.
 * @returns {Promise<Response>} Its answer; an error if it refuses.
 */
export function postRoute(path, body) {
  const headers = { "Content-Type": "application/json" };
  return accepted(api.fetchApi(ROUTES + path, { method: "POST", headers, body: JSON.stringify(body) }));
}

/**
 * Read the workflow that was queued under a prompt id.
 * @param {string} id Prompt id.
 * @returns {Promise<Comfy.Prompt|undefined>} The workflow in API form; undefined if the server no longer has it.
 */
export async function readPrompt(id) {
  // While nodes after the search still run, the prompt is in the queue; it enters the history when it ends.
  const { queue_running } = await getJSON("/queue");
  const running = queue_running.find((/** @type {Comfy.QueuedPrompt} */ queued) => queued[1] === id);
  return (running ?? (await getJSON(`/history/${encodeURIComponent(id)}`))[id]?.prompt)?.[2];
}

/**
 * @param {string} path
 * @returns {Promise<any>}
 */
async function getJSON(path) {
  return (await accepted(api.fetchApi(path))).json();
}

/**
 * Wait for a response; throw an error with the server's own message if the request was refused.
 * @param {Promise<Response>} request
 * @returns {Promise<Response>}
 */
async function accepted(request) {
  const response = await request;
  if (response.ok) return response;
  throw new Error(errorMessage(await response.text()) || response.statusText);
}

/**
 * @param {string} text Body of a response.
 * @returns {string} The error in it: our routes answer with JSON; ComfyUI's own, and proxies, may answer with plain text.
 */
function errorMessage(text) {
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text;
  }
}
