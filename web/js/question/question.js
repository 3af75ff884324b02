// A question to the person: pictures side by side, picked with the mouse or the keys. Draws into an element from a search's
// state; knows neither ComfyUI nor the network, so that the dashboard, a dialog or a test can show it.

const STYLE_ID = "ns-choice-style";
const KEYS_SHOWN = 9;
const TICK = 250; // milliseconds

const STYLE = `
.ns-choice { display: flex; flex-direction: column; gap: 6px; box-sizing: border-box; min-height: 0; height: 100%;
  max-height: inherit; padding: 6px;
  color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #353535); font: 12px/1.4 sans-serif; }
.ns-choice[hidden] { display: none; }
.ns-choice:popover-open { position: fixed; inset: 3vh 3vw; width: 94vw; height: 94vh; max-height: none; margin: 0; font-size: 14px;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 6px; }
.ns-choice .ns-row { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; }
.ns-choice .ns-title { font-weight: 600; flex: 1 1 auto; }
.ns-choice .ns-left { font-variant-numeric: tabular-nums; }
.ns-choice .ns-grid { display: grid; gap: 6px; flex: 1 1 auto; min-height: 96px; overflow: auto;
  grid-auto-rows: minmax(96px, 1fr);
  grid-template-columns: repeat(auto-fit, minmax(max(96px, 22%), 1fr)); }
.ns-choice button { font: inherit; color: inherit; background: var(--comfy-input-bg, #222); cursor: pointer; padding: 4px 8px;
  border: 1px solid var(--border-color, #4e4e4e); border-radius: 4px; }
.ns-choice button:disabled { opacity: 0.5; cursor: default; }
.ns-choice button:focus-visible { outline: 2px solid var(--p-primary-color, #4a9eff); outline-offset: 1px; }
.ns-choice button[aria-pressed="true"] { border-color: var(--p-primary-color, #4a9eff); }
.ns-choice .ns-choice-picture { position: relative; display: flex; padding: 2px; min-height: 96px; overflow: hidden; }
.ns-choice .ns-choice-picture:hover:enabled { border-color: var(--p-primary-color, #4a9eff); }
.ns-choice img { width: 100%; height: 100%; min-height: 0; object-fit: contain; }
.ns-choice .ns-key, .ns-choice .ns-badge, .ns-choice .ns-place { position: absolute; padding: 0 5px; border-radius: 3px;
  color: var(--input-text, #ddd); background: var(--comfy-menu-bg, #353535); }
.ns-choice .ns-key { left: 4px; top: 4px; }
.ns-choice .ns-badge { left: 4px; bottom: 4px; }
.ns-choice .ns-place { right: 4px; top: 4px; font-weight: 700; border: 1px solid var(--p-primary-color, #4a9eff); }
.ns-choice .ns-place:empty { display: none; }
.ns-choice .ns-note { opacity: 0.8; }
.ns-choice .ns-note.ns-error { color: var(--error-text, #ff4444); opacity: 1; }
`;

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text; // never HTML: names and numbers come from outside
  return made;
}

function addStyle() {
  if (document.getElementById(STYLE_ID)) return;
  const style = element("style", "", STYLE);
  style.id = STYLE_ID;
  document.head.append(style);
}

/** Address of a candidate's picture, up to 512 px, while its question is open; works below any base path. */
export function questionUrl(question, candidate) {
  return new URL(`../../../../api/noise_search/questions/${question}/${candidate}`, import.meta.url).href;
}

/**
 * Show the questions of a search in an element.
 *
 * @param {HTMLElement} container where.
 * @param {object} state of the search, with `question` and `candidates`.
 * @param {(body: object) => any} send posts {command: "answer", question, ranking} or {..., take_over: true};
 *   may return a promise. An error, or false, means that it did not go through.
 * @param {(name: string) => string} thumbUrl address of a thumbnail, by its name.
 * @returns {{update(state: object): void, remove(): void}}
 */
export function mountQuestion(container, state, send, thumbUrl) {
  return new QuestionView(container, send, thumbUrl).update(state);
}

class QuestionView {
  constructor(container, send, thumbUrl) {
    addStyle();
    this.send = send;
    this.thumbUrl = thumbUrl;
    this.question = null;
    this.ranking = null; // candidates in the order of their clicks while ranking
    this.sent = false;
    this.build();
    container.append(this.root);
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    // The graph below must not be dragged, nor its keys pressed, by what is meant for the question.
    for (const type of ["pointerdown", "dblclick"]) this.root.addEventListener(type, (event) => event.stopPropagation());
  }

  build() {
    this.root = element("section", "ns-choice");
    this.root.setAttribute("aria-label", "Your choice");
    this.title = element("span", "ns-title");
    this.left = element("span", "ns-left");
    this.left.setAttribute("role", "timer");
    this.grid = element("div", "ns-grid");
    this.grid.setAttribute("role", "group");
    this.rank = this.button("Rank", "Put several in order instead of picking one (R)", () => this.toggleRanking());
    this.done = this.button("Done", "Send the order", () => this.answer({ ranking: this.ranking }));
    this.bad = this.button("All bad", "None of these is good enough (0)", () => this.answer({ ranking: [] }));
    this.large = this.button("Enlarge", "Show them as large as the window (E)", () => this.enlarge(!this.isLarge));
    this.large.hidden = !this.root.showPopover; // older browsers
    this.model = this.button("Let the model take over", "", () => this.answer({ take_over: true }));
    this.note = element("span", "ns-note");
    this.note.setAttribute("role", "status");
    const head = element("div", "ns-row");
    head.append(this.title, this.left);
    const foot = element("div", "ns-row");
    foot.append(this.rank, this.done, this.bad, this.large, this.model, this.note);
    this.root.append(head, this.grid, foot);
  }

  button(text, title, act) {
    const made = element("button", "", text);
    made.type = "button";
    made.title = title;
    made.addEventListener("click", act);
    return made;
  }

  get isLarge() {
    return this.root.popover !== undefined && this.root.matches(":popover-open");
  }

  /** Fill the window, above everything, whatever the node's size and the graph's zoom; or go back into the node. */
  enlarge(on) {
    if (!this.root.showPopover || on === this.isLarge) return;
    const focused = document.activeElement;
    if (on) {
      this.root.popover = "manual";
      this.root.showPopover();
      this.sizes = new ResizeObserver(() => this.layOut());
      this.sizes.observe(this.grid);
    } else {
      this.sizes.disconnect();
      this.root.hidePopover();
      this.root.removeAttribute("popover");
      this.grid.style.gridTemplateColumns = "";
    }
    this.large.textContent = on ? "Shrink" : "Enlarge";
    if (this.root.contains(focused)) focused.focus();
  }

  /** Choose the number of columns that leaves each picture the most room. */
  layOut() {
    const { clientWidth: width, clientHeight: height } = this.grid;
    const count = this.pictures.length;
    const side = (columns) => Math.min(width / columns, height / Math.ceil(count / columns));
    const all = Array.from({ length: count }, (_, place) => place + 1);
    const columns = all.reduce((best, one) => (side(one) > side(best) ? one : best), 1);
    this.grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
  }

  update(state) {
    const question = state?.question ?? null;
    this.root.hidden = !question;
    if (!question) this.clear();
    else {
      if (question.id !== this.question?.id) this.show(question, state);
      this.question = question;
      this.deadline = question.seconds_left == null ? null : (state.received ?? performance.now()) + 1000 * question.seconds_left;
      this.refresh();
    }
    return this;
  }

  remove() {
    this.clear();
    this.root.remove();
  }

  clear() {
    clearInterval(this.timer);
    this.enlarge(false);
    this.timer = undefined;
    this.question = null;
    this.grid.replaceChildren();
  }

  show(question, state) {
    const hadFocus = this.root.contains(document.activeElement);
    Object.assign(this, { question, ranking: null, sent: false });
    this.say("");
    const rows = new Map((state.candidates ?? []).map((row) => [row.i, row]));
    this.pictures = question.candidates.map((index, place) => this.picture(question, index, place, rows.get(index)));
    this.grid.replaceChildren(...this.pictures);
    if (this.isLarge) this.layOut();
    if (hadFocus) this.pictures[0]?.focus();
  }

  picture(question, index, place, row) {
    const made = this.button("", "", () => this.choose(index));
    const isBest = index === question.best;
    made.className = "ns-choice-picture";
    made.dataset.candidate = index;
    made.setAttribute("aria-label", `Picture ${place + 1}, candidate ${index}${isBest ? ", the best so far" : ""}`);
    const image = element("img", "");
    image.alt = "";
    image.draggable = false;
    if (row?.thumb) image.addEventListener("error", () => (image.src = this.thumbUrl(row.thumb)), { once: true });
    image.src = questionUrl(question.id, index);
    made.append(image, element("span", "ns-place"));
    if (place < KEYS_SHOWN) made.append(element("span", "ns-key", String(place + 1)));
    if (isBest) made.append(element("span", "ns-badge", "best so far"));
    return made;
  }

  choose(index) {
    if (!this.ranking) {
      this.answer({ ranking: [index] });
      return;
    }
    const place = this.ranking.indexOf(index);
    if (place < 0) this.ranking.push(index);
    else this.ranking.splice(place, 1);
    this.refresh();
  }

  toggleRanking() {
    this.ranking = this.ranking ? null : [];
    this.refresh();
  }

  async answer(said) {
    if (this.sent || !this.question) return;
    const asked = this.question.id;
    this.sent = true;
    this.say("The search goes on.");
    this.refresh();
    try {
      if ((await this.send({ command: "answer", question: asked, ...said })) === false) this.reopen(asked, "That did not go through.");
    } catch (error) {
      this.reopen(asked, String(error?.message ?? error));
    }
  }

  /** Let a question that is still open be answered again. */
  reopen(asked, why) {
    if (this.question?.id !== asked) return;
    this.sent = false;
    this.say(why, true);
    this.refresh();
  }

  say(text, isError = false) {
    this.note.textContent = text;
    this.note.classList.toggle("ns-error", isError);
  }

  /** Bring everything but the pictures up to date. */
  refresh() {
    const { question, ranking, sent } = this;
    this.title.textContent = ranking ? "Click them in order, best first" : "Which is the best?";
    this.grid.setAttribute("aria-label", this.title.textContent);
    for (const button of [this.rank, this.bad, this.model, ...this.pictures]) button.disabled = sent;
    for (const picture of this.pictures) {
      const place = ranking ? ranking.indexOf(Number(picture.dataset.candidate)) : -1;
      picture.querySelector(".ns-place").textContent = place < 0 ? "" : String(place + 1);
      picture.removeAttribute("aria-pressed");
      if (ranking) picture.setAttribute("aria-pressed", String(place >= 0));
    }
    this.rank.setAttribute("aria-pressed", String(Boolean(ranking)));
    this.done.hidden = !ranking;
    this.done.disabled = sent || !ranking?.length;
    this.model.hidden = !question.model_ready;
    this.model.title = question.accuracy ? `The model of your choices answers from now on: ${question.accuracy}` : "";
    if (!this.note.textContent && question.model_ready) this.say(`The model of your choices: ${question.accuracy}`);
    this.tick();
    clearInterval(this.timer);
    this.timer = this.deadline == null ? undefined : setInterval(() => this.tick(), TICK);
  }

  tick() {
    const seconds = this.deadline == null ? null : Math.max(0, Math.ceil((this.deadline - performance.now()) / 1000));
    const text = seconds == null ? "" : `${seconds} s left`;
    if (this.left.textContent !== text) this.left.textContent = text;
  }

  onKey(event) {
    event.stopPropagation();
    if (event.ctrlKey || event.metaKey || event.altKey || this.sent || !this.question) return;
    const act = this.keyAction(event.key);
    if (!act) return;
    event.preventDefault();
    act();
  }

  keyAction(key) {
    if (key >= "1" && key <= "9" && key.length === 1) {
      const picture = this.pictures[Number(key) - 1];
      return picture && (() => picture.click());
    }
    if (key === "0") return () => this.bad.click();
    if (key.toLowerCase() === "r") return () => this.toggleRanking();
    if (key.toLowerCase() === "e") return () => this.enlarge(!this.isLarge);
    if (key === "Escape" && this.isLarge) return () => this.enlarge(false);
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns(), ArrowDown: this.columns() }[key];
    return step ? () => this.moveFocus(step) : null;
  }

  columns() {
    const top = this.pictures[0]?.offsetTop;
    return Math.max(1, this.pictures.filter((picture) => picture.offsetTop === top).length);
  }

  moveFocus(step) {
    const at = this.pictures.indexOf(document.activeElement);
    const next = at < 0 ? 0 : Math.min(this.pictures.length - 1, Math.max(0, at + step));
    this.pictures[next].focus();
  }
}
