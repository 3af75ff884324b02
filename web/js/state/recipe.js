/** Recipes as the page meets them: in a node's properties, or in a saved picture. Knows nothing of ComfyUI. */

export const KEY = "noise_search"; // of node.properties, and of a picture's text chunk
const PNG = [137, 80, 78, 71, 13, 10, 26, 10];
const MAX_CHUNK = 64 * 1024 * 1024; // bytes

/**
 * What it takes to render a recipe again.
 * @param {object|object[]} recipe A recipe, or those of a latent batch.
 * @returns {"stock"|"noise"|"render"} A plain seed; a noise of its own; a run that branched, or whose noise is the connected one's.
 */
export function kindOf(recipe) {
  const all = [recipe].flat();
  if (!all.length || !all.every((one) => one?.noise_search === 1)) throw new Error("this is no recipe of this version of Noise Search");
  if (all.some((one) => one.cuts?.length || /^given(@|$)/.test(one.noise))) return "render";
  const [one] = all;
  const plain = all.length === 1 && !one.moves?.length && one.noise === one.seed && isSafe(one.seed);
  return plain ? "stock" : "noise";
}

/** Whether any recipe has a text embedding of its own. */
export function isJittered(recipe) {
  return [recipe].flat().some((one) => one.jitter);
}

/** Whether a seed, which is written as text, is a number that JavaScript does not round. */
export function isSafe(seed) {
  return typeof seed === "string" && /^\d+$/.test(seed) && Number.isSafeInteger(Number(seed));
}

/** The step seed of a recipe's last run, as text. */
export function stepSeed(recipe) {
  const [one] = [recipe].flat();
  return one.cuts?.length ? one.cuts.at(-1).seed : one.seed;
}

/**
 * Read what a picture says of its search.
 * @param {ArrayBuffer} bytes Of a PNG file.
 * @param {string} nodeId Of the search node that it is wanted for: a picture may tell of several.
 * @returns {object|null} The summary; null if there is none.
 */
export function summaryInPicture(bytes, nodeId) {
  const text = pngText(new DataView(bytes), KEY);
  const found = text && JSON.parse(text);
  if (!found || typeof found !== "object") return null;
  if ("recipe" in found) return found;
  return found[nodeId] ?? Object.values(found)[0] ?? null;
}

/**
 * How many candidates a summary is of: a picture that Save Image wrote tells of all that its search kept, best first.
 * @param {object} summary What a picture carries, or a search node in its workflow.
 */
export function countKept({ kept }) {
  return Array.isArray(kept) && kept.length ? kept.length : 1;
}

/** The summary of one of the kept candidates, by its place from 0; the whole one where it is of one candidate anyway. */
export function keptAt({ kept, ...summary }, place) {
  return { ...summary, ...kept?.[place] };
}

function pngText(view, name) {
  if (view.byteLength < 8 || PNG.some((byte, place) => view.getUint8(place) !== byte)) throw new Error("this is no PNG picture");
  for (let at = 8; at + 12 <= view.byteLength; ) {
    const length = view.getUint32(at);
    if (length > MAX_CHUNK || at + 12 + length > view.byteLength) break; // cut off
    const chunk = new Uint8Array(view.buffer, view.byteOffset + at + 8, length);
    if (view.getUint32(at + 4) === 0x74455874) { // tEXt: name, 0, Latin-1
      const text = new TextDecoder("latin1").decode(chunk);
      if (text.startsWith(`${name}\0`)) return text.slice(name.length + 1);
    }
    at += 12 + length;
  }
  return null;
}
