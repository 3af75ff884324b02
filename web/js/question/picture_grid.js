/** The pictures of a question, side by side. */

import { el } from "../common/dom.js";

const NUMBERED = 9; // pictures that a digit key picks

/** @typedef {NoiseSearch.Question} Question */
/** @typedef {NoiseSearch.Candidate} Candidate */

/**
 * Address of a candidate's picture, up to 512 px, while its question is open; works below any base path.
 * @param {string} question Id of the question.
 * @param {number} candidate
 * @returns {string}
 */
export function questionURL(question, candidate) {
  return new URL(`../../../../api/noise_search/questions/${question}/${candidate}`, import.meta.url).href;
}

/** Shows the pictures of one question; `element` is to be put somewhere. */
export class PictureGrid {
  /**
   * @param {(candidate: number) => void} pick Called when a picture is clicked.
   * @param {(name: string) => string} thumbUrl Address of a thumbnail, by its name.
   */
  constructor(pick, thumbUrl) {
    this.pick = pick;
    this.thumbUrl = thumbUrl;
    this.element = el("div", { class: "ns-grid", role: "group" });
    /** @type {Picture[]} */
    this.pictures = [];
  }

  /**
   * Show a question's pictures.
   * @param {Question} question
   * @param {Candidate[]} candidates Of the search, for their thumbnails.
   */
  show(question, candidates) {
    const thumbs = new Map(candidates.map(({ i, thumb }) => [i, thumb]));
    this.pictures = question.candidates.map((index, place) => {
      const thumb = thumbs.get(index);
      const picture = new Picture(question, index, place, () => this.pick(index));
      picture.load(questionURL(question.id, index), thumb ? this.thumbUrl(thumb) : null);
      return picture;
    });
    this.element.replaceChildren(...this.pictures.map(({ element }) => element));
  }

  /** Remove all pictures. */
  clear() {
    this.element.replaceChildren();
  }

  /**
   * Bring everything but the pictures themselves up to date.
   * @param {number[]|null} ranking Candidates in the order they were clicked; null while one is to be picked.
   * @param {boolean} disabled
   */
  refresh(ranking, disabled) {
    for (const picture of this.pictures) picture.refresh(ranking, disabled);
  }

  /** Choose the number of columns that leaves each picture the most room. */
  layOut() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const count = this.pictures.length;
    const side = (/** @type {number} */ columns) => Math.min(width / columns, height / Math.ceil(count / columns));
    const all = Array.from({ length: count }, (_, place) => place + 1);
    const columns = all.reduce((best, each) => (side(each) > side(best) ? each : best), 1);
    this.element.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  }

  /** Let the stylesheet choose the columns again. */
  resetLayout() {
    this.element.style.gridTemplateColumns = "";
  }

  /** @returns {number} The pictures in the first row. */
  columns() {
    const top = this.pictures[0]?.element.offsetTop;
    return Math.max(1, this.pictures.filter(({ element }) => element.offsetTop === top).length);
  }

  /**
   * Click a picture.
   * @param {number} place From 0.
   * @returns {boolean} Whether there is one.
   */
  click(place) {
    const picture = this.pictures[place];
    picture?.element.click();
    return Boolean(picture);
  }

  /** Give the keyboard's focus to the first picture. */
  focus() {
    this.pictures[0]?.element.focus();
  }

  /**
   * Move the keyboard's focus by some pictures.
   * @param {number} step
   */
  moveFocus(step) {
    const at = this.pictures.findIndex(({ element }) => element === document.activeElement);
    const next = at < 0 ? 0 : Math.min(this.pictures.length - 1, Math.max(0, at + step));
    this.pictures[next].element.focus();
  }
}

/** One picture: a button. */
class Picture {
  /**
   * @param {Question} question
   * @param {number} index Of the candidate.
   * @param {number} place Among the pictures.
   * @param {() => void} onclick
   */
  constructor(question, index, place, onclick) {
    const isBest = index === question.best;
    this.index = index;
    this.image = el("img", { alt: "", draggable: "false" });
    this.rank = el("span", { class: "ns-place" });
    const label = `Picture ${place + 1}, candidate ${index}${isBest ? ", the best so far" : ""}`;
    const attributes = { type: "button", class: "ns-choice-picture", "data-candidate": index, "aria-label": label, onclick };
    this.element = el("button", attributes, this.image, this.rank);
    if (place < NUMBERED) this.element.append(el("span", { class: "ns-key", text: String(place + 1) }));
    if (isBest) this.element.append(el("span", { class: "ns-badge", text: "best so far" }));
  }

  /**
   * Load the picture.
   * @param {string} url
   * @param {string|null} fallback Address of what is shown where the picture is no longer there.
   */
  load(url, fallback) {
    if (fallback) this.image.addEventListener("error", () => (this.image.src = fallback), { once: true });
    this.image.src = url;
  }

  /**
   * @param {number[]|null} ranking
   * @param {boolean} disabled
   */
  refresh(ranking, disabled) {
    const place = ranking ? ranking.indexOf(this.index) : -1;
    this.element.disabled = disabled;
    this.rank.textContent = place < 0 ? "" : String(place + 1);
    if (ranking) this.element.setAttribute("aria-pressed", String(place >= 0));
    else this.element.removeAttribute("aria-pressed");
  }
}
