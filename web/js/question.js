/** Placeholder: the questions of a search that a person judges. */

/** Put a question into a container; returns what keeps it up to date and takes it away. */
export function mountQuestion(container) {
  return { update() {}, remove: () => container.replaceChildren() };
}
