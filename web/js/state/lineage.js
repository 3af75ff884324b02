/** Which candidate came from which. */

/**
 * A candidate's family, as far as it is known.
 * @param {Map<number, {i: number, parent: number|null}>} byIndex Candidates by index.
 * @param {number} index The candidate.
 * @returns {{ancestors: number[], children: number[]}} Parent, its parent and so on; and what came from it.
 */
export function family(byIndex, index) {
  const ancestors = [];
  let parent = byIndex.get(index)?.parent ?? null;
  while (parent !== null && parent !== index && !ancestors.includes(parent)) {
    ancestors.push(parent);
    parent = byIndex.get(parent)?.parent ?? null;
  }
  const children = [...byIndex.values()].filter((row) => row.parent === index && row.i !== index).map((row) => row.i);
  return { ancestors, children };
}

/**
 * The links to draw, each from an older candidate to a younger one.
 * @returns {[number, number][]}
 */
export function links(index, { ancestors, children }) {
  const chain = [index, ...ancestors];
  const up = ancestors.map((parent, place) => [parent, chain[place]]);
  return [...up.reverse(), ...children.map((child) => [index, child])];
}

const NAMED = 6; // more would fill the card

/** A family in words: [where it came from, what it led to]; each "" if there is nothing to say. */
export function inWords({ ancestors, children }) {
  const name = (index) => (index === 0 ? "#0 (your seed)" : `#${index}`);
  const from = listed(ancestors.map(name), " ← ");
  const to = listed(children.map((child) => `#${child}`), ", ");
  return [from && `from ${from}`, to && `led to ${to}`];
}

function listed(names, separator) {
  const more = names.length - NAMED;
  return names.slice(0, NAMED).join(separator) + (more > 0 ? ` and ${more} more` : "");
}
