// What a person sees: panels, chips, notices and the grid. Decides nothing.

import { byId, button, fill, icon, make } from "./elements.js";

const VERDICTS = {
  dislike: { icon: "dislike", name: "Dislike", past: "disliked" },
  unsure: { icon: "unsure", name: "Unsure", past: "unsure" },
  like: { icon: "like", name: "Like", past: "liked" },
};
const TROUBLES = { offline: "Offline", service: "Service busy", "signed-out": "Signed out" };
const GAP = 14;
const CONTROL = 52;
const STRIP = 76;
const SMALLEST = 120;
const STRIP_COLUMNS = 8;
const TINY = 160; // pixels across: shown with hard edges, not as a blur

const narrow = matchMedia("(max-width: 640px)");

/** `acts`: mark(index, value), focus(index), zoom(), retry(index). */
export class View {
  zoomed = false;
  #tiles = [];
  #desk = null;
  #acts;
  #notices = new Map();

  constructor(acts) {
    this.#acts = acts;
    new ResizeObserver(() => this.#arrange()).observe(byId("room"));
    narrow.addEventListener("change", () => this.#arrange());
  }

  /** One image at a time: zoomed, or on a phone. */
  get single() {
    return this.zoomed || narrow.matches;
  }

  /** Tell everybody, those who listen too. */
  announce(text) {
    const live = byId("live");
    live.textContent = live.textContent === text ? `${text}\u00a0` : text;
  }

  /** A whole-page message instead of a group. `choices` are [text, act, main?]. */
  panel(state, title, text, choices = []) {
    document.body.dataset.state = state;
    const hadFocus = byId("work").contains(document.activeElement);
    byId("work").hidden = true;
    byId("panel").hidden = false;
    const changed = byId("panel-title").textContent !== title;
    byId("panel-title").textContent = title;
    byId("panel-text").textContent = text;
    byId("panel-choices").replaceChildren(
      ...choices.map(([name, act, main]) => button(name, act, { className: main && "main" })),
    );
    if (hadFocus) byId("panel-title").focus();
    if (changed) this.announce(`${title}. ${text}`);
  }

  /** Words that change often and are not announced. */
  panelText(text) {
    byId("panel-text").textContent = text;
  }

  /** Put a group on screen. */
  show(desk) {
    this.#desk = desk;
    const { group } = desk.group.assignment;
    document.body.dataset.state = desk.review ? "review" : "label";
    byId("panel").hidden = true;
    byId("work").hidden = false;
    const asked = group.question.text;
    byId("question").textContent = desk.review ? `You have answered this: ${asked}` : asked;
    byId("prompt").textContent = group.prompt.text;
    this.#tiles = desk.group.images.map((picture, index) => this.#tile(picture, index));
    byId("grid").replaceChildren(...this.#tiles.map((tile) => tile.item));
    this.#arrange();
    desk.group.images.forEach((_, index) => {
      this.refresh(index);
      this.reload(index);
    });
    this.focus(desk.index);
  }

  #tile(picture, index) {
    const mark = (value) => (event) => this.#acts.mark(index, value, event);
    const buttons = Object.entries(VERDICTS).map(([value, { icon: iconName, name }]) => {
      const made = button(name, mark(value), { iconName, className: `verdict ${value}` });
      made.dataset.value = value;
      return made;
    });
    picture.element.alt = "";
    picture.element.draggable = false;
    const badge = make("span", { class: "badge", "aria-hidden": "true" });
    const frame = make("div", { class: "frame", role: "group", tabindex: "-1" });
    const noted = make("span", { class: "noted", "aria-hidden": "true" }, icon("note"));
    frame.append(picture.element, badge, noted);
    frame.addEventListener("focus", () => this.#acts.focus(index));
    frame.addEventListener("click", () => this.focus(index));
    frame.addEventListener("dblclick", () => this.#acts.zoom());
    const verdicts = make("div", { class: "verdicts", role: "group" }, ...buttons);
    verdicts.setAttribute("aria-label", `Verdict on image ${index + 1}`);
    const item = make("li", { class: "tile" }, frame, verdicts);
    item.style.setProperty("--at", (index % STRIP_COLUMNS) + 1);
    item.style.setProperty("--row", Math.floor(index / STRIP_COLUMNS) + 2);
    return { item, frame, buttons, badge, noted };
  }

  /** An image is loading once more. */
  reload(index) {
    const picture = this.#desk.group.images[index];
    picture.ready.then(() => this.#loaded(picture, index));
  }

  #loaded(picture, index) {
    const tile = this.#tiles[index];
    if (this.#desk?.group.images[index] !== picture || !tile) return;
    tile.item.dataset.broken = picture.broken ? "yes" : "";
    tile.item.dataset.tiny = picture.element.naturalWidth < TINY ? "yes" : "";
    tile.frame.querySelector(".retry")?.remove();
    if (picture.broken) {
      const again = button("Cannot be shown. Try again", () => this.#acts.retry(index), {
        iconName: "broken",
        className: "retry",
      });
      tile.frame.append(again);
    }
    this.refresh(index);
  }

  /** Draw the verdict of one image. */
  refresh(index) {
    const tile = this.#tiles[index];
    const mark = this.#desk.at(index) ?? {};
    tile.item.dataset.value = mark.value ?? "";
    for (const pressed of tile.buttons) {
      pressed.setAttribute("aria-pressed", String(pressed.dataset.value === mark.value));
    }
    const verdict = VERDICTS[mark.value];
    const words = verdict ? [icon(verdict.icon), make("span", {}, verdict.name)] : [];
    tile.badge.replaceChildren(...words);
    tile.noted.hidden = !mark.note;
    tile.frame.setAttribute("aria-label", this.describe(index));
  }

  /** An image in words, for the live region and the frame's name. */
  describe(index) {
    const mark = this.#desk.at(index) ?? {};
    const broken = this.#desk.group.images[index].broken;
    const verdict = VERDICTS[mark.value]?.past ?? (broken ? "cannot be shown" : "not labelled");
    const note = mark.note ? ", with a note" : "";
    return `Image ${index + 1} of ${this.#tiles.length}, ${verdict}${note}`;
  }

  /** Make image `index` the focused one, and the only one in the tab order. */
  focus(index) {
    this.mark(index);
    this.#tiles[index].frame.focus({ preventScroll: this.single });
  }

  /** The same without moving the browser's focus. */
  mark(index) {
    this.#tiles.forEach(({ item, frame, buttons }, number) => {
      const current = number === index;
      item.dataset.current = current ? "yes" : "";
      frame.tabIndex = current ? 0 : -1;
      for (const one of buttons) one.tabIndex = current ? 0 : -1;
    });
    if (this.single) this.#desk.group.images[index].sharpen();
  }

  /** Columns of the grid as arranged now: what up and down mean. */
  columns = 1;

  #arrange() {
    const room = byId("room");
    const count = this.#tiles.length;
    const [width, height] = [room.clientWidth, room.clientHeight];
    if (!count || !width) return;
    const grid = byId("grid");
    grid.dataset.single = this.single ? "yes" : "";
    let size = 0;
    if (this.single) {
      this.columns = Math.min(count, STRIP_COLUMNS);
      const rows = Math.ceil(count / STRIP_COLUMNS);
      size = Math.min(width, height - CONTROL - 12 - rows * (STRIP + GAP));
    } else {
      for (let columns = 1; columns <= count; columns += 1) {
        const rows = Math.ceil(count / columns);
        const across = (width - GAP * (columns - 1)) / columns;
        const down = (height - GAP * (rows - 1)) / rows - CONTROL;
        if (Math.min(across, down) > size) {
          size = Math.min(across, down);
          this.columns = columns;
        }
      }
    }
    grid.style.setProperty("--columns", this.columns);
    grid.style.setProperty("--size", `${Math.floor(Math.max(SMALLEST, size))}px`);
  }

  /** One image at a time, or all. */
  zoom(on) {
    this.zoomed = on;
    this.#arrange();
  }

  /** Blur behind a content warning, or not (`text` is null). */
  warn(text, key) {
    byId("warning").hidden = text === null;
    byId("grid").dataset.blurred = text === null ? "" : "yes";
    if (text === null) return;
    byId("warning-text").replaceChildren(
      icon("hidden"),
      make("span", {}, `Content warning: ${text}`),
    );
    fill(byId("reveal"), "zoom", "Show the images", key);
  }

  /** The chip that says whether answers have left. */
  sending(waiting, trouble) {
    const chip = byId("sending");
    chip.hidden = false;
    const why = TROUBLES[trouble];
    const calm = waiting ? `Sending ${waiting}` : "All sent";
    const text = why ? `${why}, ${waiting} waiting` : calm;
    if (chip.dataset.text === text) return;
    chip.dataset.text = text;
    chip.dataset.trouble = trouble ?? "";
    chip.replaceChildren(icon(why ? "waiting" : "sent"), make("span", {}, text));
  }

  /** The lease's chip: seconds left, or null for none. */
  lease(seconds, lost) {
    const chip = byId("lease");
    chip.hidden = seconds === null;
    if (seconds === null) return;
    const clock = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    const text = lost || seconds === 0 ? "Lease ended" : `Yours for ${clock}`;
    chip.dataset.low = lost || seconds < 30 ? "yes" : "";
    chip.replaceChildren(icon("time"), make("span", {}, text));
  }

  count(groups) {
    byId("count").textContent = groups === 1 ? "1 group done" : `${groups} groups done`;
  }

  /** A message above the group that stays until it is dismissed or taken away. */
  notice(name, text, choices = []) {
    this.unnotice(name);
    const dismiss = () => this.unnotice(name);
    const buttons = [...choices, ["Dismiss", () => null]].map(([label, act]) =>
      button(label, () => {
        dismiss();
        act();
      }),
    );
    const made = make("div", { class: "notice" }, make("p", {}, text), ...buttons);
    this.#notices.set(name, made);
    byId("notices").append(made);
    this.announce(text);
  }

  unnotice(name) {
    this.#notices.get(name)?.remove();
    this.#notices.delete(name);
  }
}
