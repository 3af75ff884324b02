/** Which candidate was derived from which. */

/**
 * @typedef {object} Family
 * @property {number[]} ancestors The parent, its parent, and so on.
 * @property {number[]} children What was derived from the candidate itself.
 */

const NAMED = 6; // more would fill the card

/**
 * A candidate's family, as far as it is known.
 * @param {Map<number, NoiseSearch.Candidate>} byIndex Candidates by index.
 * @param {number} index The candidate.
 * @returns {Family}
 */
export function family(byIndex, index) {
  /** @type {number[]} */
  const ancestors = [];
  let parent = byIndex.get(index)?.parent ?? null;
  while (parent !== null && parent !== index && !ancestors.includes(parent)) {
    ancestors.push(parent);
    parent = byIndex.get(parent)?.parent ?? null;
  }
  const children = [...byIndex.values()].filter(({ i, parent }) => parent === index && i !== index).map(({ i }) => i);
  return { ancestors, children };
}

/**
 * The links to draw.
 * @param {number} index The candidate.
 * @param {Family} family Its family.
 * @returns {[number, number][]} Each from a parent to its child.
 */
export function links(index, { ancestors, children }) {
  const chain = [index, ...ancestors];
  /** @type {[number, number][]} */
  const up = ancestors.map((parent, place) => [parent, chain[place]]);
  /** @type {[number, number][]} */
  const down = children.map((child) => [index, child]);
  return [...up.reverse(), ...down];
}

/**
 * A family as text.
 * @param {Family} family
 * @returns {string} Where the candidate came from, and what it led to; "" for neither.
 */
export function describeFamily({ ancestors, children }) {
  const from = list(ancestors.map((index) => (index === 0 ? "#0 (your seed)" : `#${index}`)), " ← ");
  const to = list(children.map((child) => `#${child}`), ", ");
  return [from && `from ${from}`, to && `led to ${to}`].filter(Boolean).join("; ");
}

/**
 * @param {string[]} names
 * @param {string} separator
 * @returns {string}
 */
function list(names, separator) {
  const more = names.length - NAMED;
  return names.slice(0, NAMED).join(separator) + (more > 0 ? ` and ${more} more` : "");
}
