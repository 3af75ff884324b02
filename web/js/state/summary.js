/** Summaries of searches: in a node's properties, or in a saved picture. Does not depend on ComfyUI. */

/** @typedef {NoiseSearch.Summary} Summary */

const KEYWORD = "noise_search"; // of the picture's text chunk
const PNG = [137, 80, 78, 71, 13, 10, 26, 10];
const TEXT = 0x74455874; // "tEXt": keyword, 0, Latin-1
const MAX_CHUNK = 64 * 1024 * 1024; // bytes

/**
 * Read the summary that a picture carries.
 * @param {ArrayBuffer} bytes Of a PNG file.
 * @param {string|null} nodeId Of the search node that it is wanted for: a picture may carry those of several.
 * @returns {Summary|null} Null if there is none.
 */
export function summaryInPicture(bytes, nodeId) {
  const text = pngText(new DataView(bytes), KEYWORD);
  const found = text && JSON.parse(text);
  if (!found || typeof found !== "object") return null;
  if ("recipe" in found) return found;
  return (nodeId !== null && found[nodeId]) || (Object.values(found)[0] ?? null);
}

/**
 * How many candidates a summary describes: a picture that Save Image wrote carries all that its search kept, best first.
 * @param {Summary} summary What a picture carries, or a search node in its workflow.
 * @returns {number}
 */
export function countKept({ kept }) {
  return Array.isArray(kept) && kept.length ? kept.length : 1;
}

/**
 * The summary of one of the kept candidates.
 * @param {Summary} summary Of all of them.
 * @param {number} place From 0, the best. Ignored where the summary describes one candidate only.
 * @returns {Summary}
 */
export function keptAt({ kept, ...summary }, place) {
  return { ...summary, ...kept?.[place] };
}

/**
 * @param {DataView} view Of a PNG file.
 * @param {string} keyword
 * @returns {string|null} The text chunk with this keyword.
 */
function pngText(view, keyword) {
  if (view.byteLength < PNG.length || PNG.some((byte, place) => view.getUint8(place) !== byte)) {
    throw new Error("this is not a PNG picture");
  }
  for (let at = PNG.length; at + 12 <= view.byteLength; ) {
    const length = view.getUint32(at);
    if (length > MAX_CHUNK || at + 12 + length > view.byteLength) break; // the file is truncated
    if (view.getUint32(at + 4) === TEXT) {
      const text = new TextDecoder("latin1").decode(new Uint8Array(view.buffer, view.byteOffset + at + 8, length));
      if (text.startsWith(`${keyword}\0`)) return text.slice(keyword.length + 1);
    }
    at += 12 + length;
  }
  return null;
}
