// The annotator page: wires the supply of groups, the desk, the queue, the keys and the view.
//
// A decision goes to disk, then the next group (leased and decoded ahead) is shown, then the
// answer is sent. Nothing that a person decided depends on the network.

import { Offline, Problem, pauseMs } from "./api.js";
import { Desk } from "./desk.js";
import { askReason, dialogIsOpen, editNote, showGuidelines, showHelp, showKept } from "./dialogs.js";
import { byId, fill } from "./elements.js";
import { History } from "./history.js";
import { Keys, isTyped, keyOf, shownKey } from "./keys.js";
import { Queue } from "./queue.js";
import { WorkClock, signOut, whoAmI } from "./session.js";
import { recall, remember } from "./settings.js";
import { openStore } from "./store.js";
import { Supply } from "./supply.js";
import { holdTab } from "./tabs.js";
import { View } from "./view.js";

const TICK_MS = 1000;
const IDLE_MS = 10 * 60 * 1000; // nobody is there: let the lease go to somebody who is
const PREFETCH_AGAIN_MS = 5000;
const SAY_LEASE_BELOW_S = 20;

class Page {
  desk = null; // what is on screen
  working = null; // the desk in work while an older group is reviewed
  supply = new Supply();
  keys = new Keys();
  clock = new WorkClock();
  groupsDone = 0;
  busy = false;
  signedOut = false;
  offline = false;
  beating = false;
  lastInputAt = performance.now();
  prefetchAt = 0;
  turn = 0; // a newer wait for a group ends the older ones

  constructor() {
    this.view = new View({
      mark: (index, value, event) => this.clicked(index, value, event),
      focus: (index) => this.focused(index),
      zoom: () => this.zoom(),
      retry: (index) => this.retry(index),
    });
  }

  async start() {
    this.store = await openStore();
    this.bindControls();
    this.session = await this.insist(whoAmI);
    if (!this.session) return this.askToSignIn();
    const { annotator_id: annotatorId } = this.session;
    if (!annotatorId) {
      return this.view.panel("error", "Not an annotator", "This session may not label images.");
    }
    this.history = new History(this.store, annotatorId);
    this.queue = new Queue(this.store, annotatorId, {
      changed: (queue) => this.drawSending(queue),
      sent: (entry, body) => this.sent(entry, body),
      refused: (entry, problem) => this.refused(entry, problem),
      signedOut: () => this.lostSession(),
    });
    if (!this.store.durable) {
      this.view.notice("memory", "This browser keeps nothing on disk: send before you close it.");
    }
    setInterval(() => this.tick(), TICK_MS);
    await this.queue.flush();
    await this.offerKept();
    return this.next();
  }

  /** Call until there is an answer, telling the person why it takes so long. */
  async insist(act, turn = this.turn) {
    for (let attempt = 1; turn === this.turn; attempt += 1) {
      try {
        const answer = await act();
        this.online();
        return answer;
      } catch (error) {
        if (error instanceof Problem && !error.passing) throw error;
        if (!(error instanceof Problem) && !(error instanceof Offline)) throw error;
        this.offline = error instanceof Offline;
        this.drawSending();
        const waiting = this.queue?.waiting ?? 0;
        const kept = waiting ? ` Your answers to ${waiting} groups are kept and will be sent.` : "";
        const title = this.offline ? "You are offline" : "The service is busy";
        this.view.panel("offline", title, `The page goes on by itself.${kept}`, [
          ["Try now", () => this.wake?.(), true],
        ]);
        await this.pause(pauseMs(attempt, error));
      }
    }
    return null;
  }

  /** Wait, or until somebody calls `wake`. */
  pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  // Groups --------------------------------------------------------------------------------------

  /** Show the next group, or wait for one. */
  async next() {
    this.turn += 1;
    const { turn } = this;
    const ready = this.supply.takeReady();
    if (ready) return this.show(ready);
    this.desk = null;
    this.view.count(this.groupsDone);
    this.view.panel("loading", "One moment", "Looking for something to label.");
    while (turn === this.turn) {
      let group;
      try {
        group = await this.insist(() => this.supply.take(), turn);
      } catch (error) {
        return this.claimRefused(error);
      }
      if (turn !== this.turn) return null;
      if (group) return this.show(group);
      await this.waitForGroups(turn);
    }
    return null;
  }

  async waitForGroups(turn) {
    this.view.panel("empty", "All caught up", "", [
      ["Look again", () => this.wake?.(), true],
      ["Previous group", () => this.previous()],
    ]);
    const until = performance.now() + this.supply.retryMs;
    while (turn === this.turn && performance.now() < until) {
      const seconds = Math.ceil((until - performance.now()) / 1000);
      this.view.panelText(`There is nothing to label right now. Looking again in ${seconds} s.`);
      let woken = false;
      const pause = this.pause(Math.min(1000, until - performance.now()));
      const { wake } = this;
      this.wake = () => {
        woken = true;
        wake();
      };
      await pause;
      if (woken) return;
    }
  }

  async show(group) {
    const draft = await this.store.get("drafts", group.id);
    this.working = null;
    this.present(new Desk(group, draft?.marks));
    this.markShown(group);
    this.checkGuidelines(group.assignment);
    // A lease beside this one is only free once the answers before it have arrived.
    this.queue.flush().then(() => this.prefetch());
  }

  present(desk) {
    this.desk = desk;
    this.view.zoom(false);
    this.view.show(desk);
    this.view.count(this.groupsDone);
    const warning = desk.group.assignment.group.content_warning;
    const blur = Boolean(warning) && !desk.review && recall("blur", true);
    this.blurred = blur;
    this.view.warn(blur ? warning : null, shownKey(this.keys.of("reveal")[0]));
    this.drawControls();
    this.drawLease();
  }

  /** The time from key to painted group, for whoever measures. */
  markShown(group) {
    group.loaded().then(() =>
      requestAnimationFrame(() =>
        setTimeout(() => {
          performance.mark("group-shown");
          const [submitted] = performance.getEntriesByName("group-submitted").slice(-1);
          if (!submitted) return;
          performance.measure("key-to-next-group", "group-submitted", "group-shown");
          performance.clearMarks("group-submitted");
        }),
      ),
    );
  }

  async prefetch() {
    this.prefetchAt = performance.now() + Math.max(PREFETCH_AGAIN_MS, this.supply.retryMs);
    await this.supply.prefetch();
    if (this.desk && !this.desk.group.lost) this.view.unnotice("lost");
  }

  async submit() {
    if (this.busy || !this.desk) return;
    const { desk } = this;
    const missing = desk.missing();
    if (missing.length) {
      this.go(desk.nextMissing(desk.index - 1));
      const images = missing.length === 1 ? "1 image has" : `${missing.length} images have`;
      this.view.announce(`${images} no verdict yet. ${this.view.describe(desk.index)}`);
      return;
    }
    await this.finish(async () => {
      if (desk.review) return this.saveReview(desk);
      performance.mark("group-submitted");
      const { group } = desk;
      const prompt = group.assignment.group.prompt.text;
      const labels = desk.labels();
      const entry = { kind: "submit", assignmentId: group.id, token: group.token, prompt, labels };
      await Promise.all([this.history.add(group, desk.marks), this.queue.add(entry)]);
      return this.done(group);
    });
  }

  async skip(reason) {
    const { group } = this.desk;
    await this.finish(async () => {
      await this.queue.add({ kind: "skip", assignmentId: group.id, reason });
      this.view.announce("Group skipped.");
      return this.done(group);
    });
  }

  /** One decision at a time: a second Enter finds the button locked. */
  async finish(act) {
    if (this.busy) return;
    this.busy = true;
    byId("submit").setAttribute("aria-disabled", "true");
    try {
      await act();
    } finally {
      this.busy = false;
      byId("submit").removeAttribute("aria-disabled");
    }
  }

  async done(group) {
    this.supply.finish(group);
    this.store.remove("drafts", group.id);
    this.view.unnotice("lost");
    this.groupsDone += 1;
    if (this.clock.worked(Date.now())) {
      this.view.notice("nudge", "25 minutes at it. A short break keeps your eye fresh.");
    }
    await this.next();
  }

  // Looking back --------------------------------------------------------------------------------

  async previous() {
    const at = this.desk?.review ? this.desk.group.id : null;
    const record = await this.history.before(at);
    if (!record) return this.view.announce("There is no earlier group to look at.");
    this.turn += 1;
    if (this.desk && !this.desk.review) this.working = this.desk;
    const group = this.history.group(record);
    const desk = new Desk(group, record.marks, true);
    this.present(desk);
    this.view.announce(
      `Group submitted before. Change it and press ${shownKey(this.keys.of("submit")[0])} to save, or Escape to return.`,
    );
    return desk;
  }

  async saveReview(desk) {
    const changes = desk.changes();
    for (const change of changes) {
      await this.queue.add({ kind: "amend", assignmentId: desk.group.id, ...change });
    }
    if (changes.length) await this.history.remark(desk.group.id, desk.marks);
    await this.comeBack();
    this.view.announce(changes.length ? "Changes saved." : "Nothing changed.");
  }

  /** From review to the group in work. */
  async comeBack() {
    if (!this.working) return this.next();
    this.present(this.working);
    this.working = null;
    return null;
  }

  async undo() {
    const { desk } = this;
    const index = desk?.undo() ?? null;
    if (index !== null) {
      this.changed(index);
      this.go(index);
      this.view.announce(`Undone. ${this.view.describe(index)}`);
    } else if (!desk?.review) {
      const earlier = await this.previous();
      if (earlier) this.go(earlier.lastMarked());
    }
  }

  // One image -----------------------------------------------------------------------------------

  /** A verdict by key: mark it and go on to what is left. */
  decide(value) {
    const { desk } = this;
    if (!desk || this.busy || this.mustReveal()) return;
    const { index } = desk;
    if (desk.image.broken) return this.view.announce(this.view.describe(index));
    desk.mark(index, value);
    this.changed(index);
    const said = this.view.describe(index);
    const next = desk.review ? index : desk.nextMissing(index);
    if (next >= 0) this.go(next);
    const end = `All labelled: ${shownKey(this.keys.of("submit")[0])} submits.`;
    this.view.announce(next >= 0 && next !== index ? `${said}. ${this.view.describe(next)}` : `${said}. ${end}`);
  }

  /** A verdict by pointer; pressed again it is taken away. */
  clicked(index, value, event) {
    if (this.busy || this.mustReveal()) return;
    this.desk.index = index;
    if (this.view.single) return this.decide(value);
    const before = this.desk.at(index)?.value;
    this.desk.mark(index, before === value && !this.desk.review ? null : value);
    this.changed(index);
    this.view.announce(this.view.describe(index));
    this.view.mark(index);
    const byPointer = event.detail > 0;
    if (byPointer) this.view.focus(index); // so that Enter submits instead of pressing again
    return null;
  }

  mustReveal() {
    if (!this.blurred) return false;
    this.view.announce("The images are blurred. Show them first, or skip the group.");
    return true;
  }

  /** A mark has changed: draw it and keep it. */
  changed(index) {
    this.view.refresh(index);
    this.drawControls();
    const { desk } = this;
    if (!desk.review) {
      const draft = { assignmentId: desk.group.id, marks: desk.marks, at: Date.now() };
      this.store.put("drafts", draft);
    }
  }

  go(index) {
    if (index < 0) return;
    this.desk.index = index;
    this.view.focus(index);
  }

  focused(index) {
    if (!this.desk) return;
    this.desk.index = index;
    this.view.mark(index);
  }

  move(step) {
    const last = this.desk.group.images.length - 1;
    const index = Math.min(last, Math.max(0, this.desk.index + step));
    if (index === this.desk.index) return;
    this.go(index);
    this.view.announce(this.view.describe(index));
  }

  zoom() {
    if (!this.desk) return;
    this.view.zoom(!this.view.zoomed);
    this.drawControls();
    this.view.announce(this.view.zoomed ? "Zoomed in: one image." : "All images.");
    this.view.focus(this.desk.index);
  }

  retry(index) {
    const picture = this.desk.group.images[index];
    picture.load();
    this.view.reload(index);
  }

  reveal() {
    if (!this.blurred) return;
    this.blurred = false;
    this.view.warn(null);
    this.view.focus(this.desk.index);
    this.view.announce("Images shown.");
  }

  // Dialogs -------------------------------------------------------------------------------------

  refocus() {
    if (this.desk) this.view.focus(this.desk.index);
  }

  checkGuidelines({ group, guidelines, guidelines_version: version }) {
    const name = `guidelines:${group.question.question_id}`;
    if (recall(name, 0) >= version) return;
    remember(name, version);
    if (guidelines) showGuidelines(version, guidelines, true, () => this.refocus());
  }

  guidelines() {
    if (!this.desk) return;
    const { guidelines, guidelines_version: version } = this.desk.group.assignment;
    showGuidelines(version, guidelines, false, () => this.refocus());
  }

  askSkip() {
    if (!this.desk || this.desk.review || this.busy) return;
    askReason((reason) => this.skip(reason), () => this.refocus());
  }

  note() {
    if (!this.desk || this.busy || this.mustReveal()) return;
    const { desk } = this;
    const { index } = desk;
    const save = (text) => {
      desk.note(index, text);
      this.changed(index);
      this.view.announce(text ? "Note saved." : "No note.");
    };
    editNote(index + 1, desk.at(index)?.note ?? "", save, () => this.refocus());
  }

  help() {
    const who = this.session ? `Signed in as ${this.session.annotator_id}.` : "Not signed in.";
    showHelp(this.keys, who, () => this.drawControls(), () => this.refocus());
  }

  async offerKept() {
    const all = await this.store.all("kept");
    const entries = all.filter((entry) => entry.annotatorId === this.session.annotator_id);
    if (!entries.length) return this.view.unnotice("kept");
    const groups = entries.length === 1 ? "1 group was" : `${entries.length} groups were`;
    const text = `Your answers to ${groups} not accepted, and are kept in this browser.`;
    const discard = (entry) => this.store.remove("kept", entry.id);
    const again = async (entry) => {
      const { id, problem: _, ...rest } = entry;
      await this.store.remove("kept", id);
      await this.queue.add(rest);
    };
    return this.view.notice("kept", text, [["Look at them", () => showKept(entries, again, discard)]]);
  }

  // What the queue tells -------------------------------------------------------------------------

  async sent(entry, body) {
    this.online();
    if (entry.kind === "submit") await this.history.accepted(entry.assignmentId, body);
    if (entry.kind === "amend") await this.history.amended(entry.assignmentId, entry.imageId, body);
  }

  async refused(entry, problem) {
    if (entry.kind === "submit" || problem.code === "group-consumed") {
      await this.history.forget(entry.assignmentId);
    }
    if (problem.code === "group-consumed") {
      this.view.notice("consumed", "That group has been used in training already; the change came too late.");
      return;
    }
    await this.offerKept();
  }

  // Session -------------------------------------------------------------------------------------

  askToSignIn() {
    const text =
      "Open your invite link in this browser, or ask whoever runs the labelling for a new one. " +
      "Answers that wait here are sent once you are back.";
    this.view.panel("signed-out", "Please sign in", text, [
      ["I have signed in", () => location.reload(), true],
    ]);
  }

  claimRefused(error) {
    if (!(error instanceof Problem)) throw error;
    if (!error.signedOut) return this.view.panel("error", "This does not work", error.message);
    this.lostSession();
    return null;
  }

  /** The session ended: look once whether another tab has begun a new one. */
  async lostSession() {
    if (this.signedOut) return;
    this.signedOut = true;
    this.drawSending();
    if (await this.regain()) return;
    if (!this.desk) {
      this.askToSignIn();
      return;
    }
    const text =
      "You have been signed out. Nothing is lost: go on, answers are kept in this browser. " +
      "Open an invite link in another tab to have them sent.";
    this.view.notice("session", text, [["I have signed in", () => this.regain()]]);
  }

  async regain() {
    if (!this.signedOut || this.regaining) return false;
    this.regaining = true;
    try {
      const session = await whoAmI();
      if (!session) return false;
      if (session.annotator_id !== this.session.annotator_id) location.reload();
      this.signedOut = false;
      this.session = session;
      this.view.unnotice("session");
      this.view.announce("Signed in again.");
      this.queue.flush();
      if (!this.desk) this.next();
      return true;
    } catch (error) {
      if (!(error instanceof Offline) && !(error instanceof Problem)) throw error;
      return false;
    } finally {
      this.regaining = false;
    }
  }

  async leave() {
    await this.queue?.flush();
    try {
      await signOut();
    } catch (error) {
      if (error instanceof Offline) return this.view.announce("Offline: sign out later.");
    }
    return location.reload();
  }

  // Time ----------------------------------------------------------------------------------------

  tick() {
    this.drawLease();
    if (document.hidden || this.signedOut) return;
    if (performance.now() - this.lastInputAt < IDLE_MS) this.beat();
    const idle = this.supply.current && !this.supply.next && !this.queue.waiting && !this.offline;
    if (idle && performance.now() > this.prefetchAt) this.prefetch();
  }

  async beat() {
    if (this.beating) return;
    this.beating = true;
    try {
      const lost = await this.supply.beat();
      if (lost.includes(this.supply.current)) this.lostLease();
    } catch (error) {
      if (error instanceof Problem && error.signedOut) this.lostSession();
      else if (error instanceof Offline) this.wentOffline();
      else if (!(error instanceof Problem)) throw error;
    } finally {
      this.beating = false;
    }
  }

  lostLease() {
    this.drawLease();
    this.view.notice(
      "lost",
      "Your lease on this group ended. Your labels are kept: submit them, and they count " +
        "unless somebody else has taken the group.",
    );
  }

  wentOffline() {
    this.offline = true;
    this.drawSending();
  }

  online() {
    if (!this.offline) return;
    this.offline = false;
    this.drawSending();
  }

  /** The browser says that the network is back, or the person is. */
  returned() {
    if (document.hidden || !this.session) return;
    this.lastInputAt = performance.now();
    if (this.signedOut) this.regain();
    this.wake?.();
    this.queue?.flush();
    this.tick();
  }

  // Drawing -------------------------------------------------------------------------------------

  drawSending(queue = this.queue) {
    const trouble = this.signedOut ? "signed-out" : (queue?.trouble ?? (this.offline ? "offline" : null));
    this.view.sending(queue?.waiting ?? 0, trouble);
  }

  drawLease() {
    const group = this.desk && !this.desk.review ? this.desk.group : null;
    if (!group) return this.view.lease(null);
    const seconds = Math.round(group.leftMs / 1000);
    if (seconds === SAY_LEASE_BELOW_S && !this.leaseSaid) {
      this.leaseSaid = true;
      this.view.announce(`The lease on this group ends in ${seconds} seconds.`);
    } else if (seconds > SAY_LEASE_BELOW_S) {
      this.leaseSaid = false;
    }
    return this.view.lease(seconds, group.lost);
  }

  drawControls() {
    const key = (action) => shownKey(this.keys.of(action)[0]);
    const { desk } = this;
    const left = desk?.missing().length ?? 0;
    const total = desk?.group.images.length ?? 0;
    fill(byId("previous"), "back", desk?.review ? "Earlier" : "Previous", key("previous"));
    fill(byId("undo"), "undo", "Undo", key("undo"));
    fill(byId("skip"), "skip", desk?.review ? "Return" : "Skip", desk?.review ? "Esc" : key("skip"));
    fill(byId("note"), "note", "Note", key("note"));
    fill(byId("zoom"), "zoom", this.view.zoomed ? "All" : "Zoom", key("zoom"));
    const text = desk?.review ? "Save and return" : left ? `${total - left} of ${total}` : "Submit";
    fill(byId("submit"), "sent", text, key("submit"));
    byId("submit").dataset.ready = left ? "" : "yes";
    byId("submit").setAttribute("aria-label", left ? `Submit: ${total - left} of ${total} labelled` : text);
    fill(byId("open-help"), "help", "Keys", key("help"));
    fill(byId("open-guidelines"), "book", "Guidelines", key("guidelines"));
    byId("open-guidelines").hidden = !desk;
    byId("blur").checked = recall("blur", true);
  }

  // Input ---------------------------------------------------------------------------------------

  bindControls() {
    const clicks = {
      previous: () => this.previous(),
      undo: () => this.undo(),
      skip: () => (this.desk?.review ? this.comeBack() : this.askSkip()),
      note: () => this.note(),
      zoom: () => this.zoom(),
      submit: () => this.submit(),
      reveal: () => this.reveal(),
      "open-help": () => this.help(),
      "open-guidelines": () => this.guidelines(),
      "sign-out": () => this.leave(),
    };
    for (const [id, act] of Object.entries(clicks)) byId(id).addEventListener("click", act);
    byId("blur").addEventListener("change", (event) => remember("blur", event.target.checked));
    this.byAction = {
      like: () => this.decide("like"),
      dislike: () => this.decide("dislike"),
      unsure: () => this.decide("unsure"),
      ...clicks,
      skip: () => this.askSkip(),
      help: clicks["open-help"],
      guidelines: clicks["open-guidelines"],
      left: () => this.move(-1),
      right: () => this.move(1),
      up: () => this.move(-this.view.columns),
      down: () => this.move(this.view.columns),
    };
    document.addEventListener("keydown", (event) => this.key(event));
    document.addEventListener("pointerdown", () => {
      this.lastInputAt = performance.now();
    });
    document.addEventListener("visibilitychange", () => this.returned());
    window.addEventListener("online", () => this.returned());
    window.addEventListener("offline", () => this.wentOffline());
    this.drawControls();
    this.drawSending();
    this.view.count(0);
  }

  key(event) {
    this.lastInputAt = performance.now();
    if (dialogIsOpen() || isTyped(event)) return;
    if (event.key === "Escape") return this.escape();
    const action = this.keys.action(keyOf(event));
    if (!action) return;
    event.preventDefault();
    const moves = ["left", "right", "up", "down"].includes(action);
    if (event.repeat && !moves) return; // a key held down is one decision
    const needsDesk = !["help", "previous", "undo"].includes(action);
    if (needsDesk && !this.desk) return;
    this.byAction[action]();
  }

  escape() {
    if (this.view.zoomed) this.zoom();
    else if (this.desk?.review) this.comeBack();
  }
}

holdTab(
  () => new Page().start(),
  (take) => {
    const view = new View({});
    const text = "Two tabs at once would show the same images. Go on in one of them.";
    view.panel("other-tab", "Open in another tab", text, [["Label here instead", take, true]]);
  },
);
