// The annotator page: wires the supply of groups, the desk, the queue, the keys and the view.
//
// A decision goes to disk, then the next group (leased and decoded ahead) is shown, then the
// answer is sent. Nothing that a person decided depends on the network.

import { Problem } from "./api.js";
import { Attendance } from "./attendance.js";
import { bindControls, drawControls } from "./controls.js";
import { Desk } from "./desk.js";
import { askReason, showGuidelines, showHelp } from "./dialogs.js";
import { byId } from "./elements.js";
import { History } from "./history.js";
import { Judging } from "./judging.js";
import { Kept } from "./kept.js";
import { Keys, shownKey } from "./keys.js";
import { Patience } from "./patience.js";
import { Queue } from "./queue.js";
import { WorkClock, signOut, whoAmI } from "./session.js";
import { recall, remember } from "./settings.js";
import { openStore } from "./store.js";
import { Supply } from "./supply.js";
import { holdTab } from "./tabs.js";
import { View } from "./view.js";

const TICK_MS = 1000;
const DRAFT_MS = 2 * 24 * 3600 * 1000;

class Page {
  supply = new Supply();
  keys = new Keys();
  clock = new WorkClock();
  working = null; // the desk in work while an older group is reviewed
  groupsDone = 0;
  prefetchAt = 0;

  constructor() {
    this.view = new View({
      mark: (index, value, event) => this.judging.click(index, value, event),
      focus: (index) => this.judging.focused(index),
      zoom: () => this.judging.zoom(),
      retry: (index) => this.judging.retry(index),
    });
    this.judging = new Judging(this.view, this.keys, (desk) => this.changed(desk));
    this.attendance = new Attendance(this.supply, this.view, {
      leased: () => (this.desk?.review ? null : (this.desk?.group ?? null)),
      reclaim: async () => {
        await this.prefetch();
        return Boolean(this.supply.current) && !this.supply.current.lost;
      },
      turnedAway: () => this.askToSignIn(),
      welcome: () => this.desk ?? this.next(),
    });
    this.patience = new Patience(this.view, this.attendance);
  }

  /** What is on screen, or null. */
  get desk() {
    return this.judging.desk;
  }

  async start() {
    this.store = await openStore();
    this.bind();
    const session = await this.patience.insist(whoAmI, this.patience.begin());
    if (!session) {
      this.askToSignIn();
      return;
    }
    const { annotator_id: annotatorId } = session;
    if (!annotatorId) {
      this.view.panel("error", "Not an annotator", "This session may not label images.");
      return;
    }
    this.attendance.session = session;
    this.history = new History(this.store, annotatorId);
    this.queue = new Queue(this.store, annotatorId, {
      changed: () => this.attendance.drawSending(),
      sent: (entry, body) => this.sent(entry, body),
      refused: (entry, problem) => this.refused(entry, problem),
      signedOut: () => this.attendance.sessionEnded(),
    });
    this.attendance.queue = this.queue;
    this.kept = new Kept(this.store, this.queue, this.view);
    if (!this.store.durable) {
      this.view.notice("memory", "This browser keeps nothing on disk: send before you close it.");
    }
    setInterval(() => this.tick(), TICK_MS);
    this.forgetOldDrafts();
    // What waits has been decided: it must not come again while it is on its way.
    for (const { assignmentId } of await this.queue.entries()) {
      this.supply.finish({ id: assignmentId });
    }
    await this.queue.count();
    this.queue.flush();
    await this.kept.offer();
    await this.next();
  }

  /** Drafts of groups that others have labelled long since. */
  async forgetOldDrafts() {
    for (const { assignmentId, at } of await this.store.all("drafts")) {
      if (at < Date.now() - DRAFT_MS) this.store.remove("drafts", assignmentId);
    }
  }

  tick() {
    this.attendance.tick();
    const { supply, attendance, queue } = this;
    const away = document.hidden || attendance.signedOut || attendance.offline || queue.waiting;
    const wanted = supply.current && !supply.next && performance.now() > this.prefetchAt;
    if (wanted && !away) this.prefetch();
  }

  // Groups --------------------------------------------------------------------------------------

  /** Show the next group, or wait for one. */
  async next() {
    const isNewest = this.patience.begin();
    const ready = this.supply.takeReady();
    if (ready) {
      await this.show(ready);
      return;
    }
    this.judging.clear();
    this.drawControls();
    this.attendance.drawLease();
    this.view.count(this.groupsDone);
    this.view.panel("loading", "One moment", "Looking for something to label.");
    try {
      for (;;) {
        const group = await this.patience.insist(() => this.supply.take(), isNewest);
        if (!isNewest()) return;
        if (group) {
          await this.show(group);
          return;
        }
        await this.patience.rest(this.supply.retryMs, isNewest, [
          ["Previous group", () => this.previous()],
        ]);
        if (!isNewest()) return;
      }
    } catch (error) {
      this.claimRefused(error);
    }
  }

  claimRefused(error) {
    if (!(error instanceof Problem)) throw error;
    if (error.signedOut) this.attendance.sessionEnded();
    else this.view.panel("error", "This does not work", error.message);
  }

  async show(group) {
    const draft = group.fresh ? null : await this.store.get("drafts", group.id);
    this.working = null;
    this.present(new Desk(group, draft?.marks));
    this.markShown(group);
    this.checkGuidelines(group.assignment);
    group.loaded().then(() => this.prefetch()); // these images first
  }

  present(desk) {
    this.judging.present(desk);
    this.view.count(this.groupsDone);
    this.drawControls();
    this.attendance.drawLease();
  }

  /** The time from key to painted group, for whoever measures (with the mark `group-ahead`). */
  markShown(group) {
    const [submitted] = performance.getEntriesByName("group-submitted");
    if (!submitted) return;
    const measure = () => {
      performance.measure("key-to-next-group", { start: submitted.startTime });
      performance.clearMarks("group-submitted");
    };
    group.loaded().then(() => requestAnimationFrame(() => setTimeout(measure)));
  }

  async prefetch() {
    await this.supply.prefetch();
    this.prefetchAt = performance.now() + this.supply.retryMs;
    if (this.supply.current && !this.supply.current.lost) this.view.unnotice("lost");
    const group = this.supply.next;
    if (!group) return;
    group.fresh = !(await this.store.get("drafts", group.id));
    await group.loaded();
    performance.mark("group-ahead");
  }

  async submit() {
    const { desk } = this;
    if (this.judging.busy || !desk) return;
    const missing = desk.missing();
    if (missing.length) {
      this.judging.go(desk.nextMissing(desk.index - 1));
      const images = missing.length === 1 ? "1 image has" : `${missing.length} images have`;
      this.view.announce(`${images} no verdict yet. ${this.view.describe(desk.index)}`);
      return;
    }
    await this.finish(() => (desk.review ? this.saveReview(desk) : this.send(desk)));
  }

  async send(desk) {
    performance.mark("group-submitted");
    const { group } = desk;
    const prompt = group.assignment.group.prompt.text;
    const labels = desk.labels();
    const entry = { kind: "submit", assignmentId: group.id, token: group.token, prompt, labels };
    await Promise.all([this.history.add(group, desk.marks), this.queue.add(entry)]);
    await this.done(group);
  }

  async skip(reason) {
    const { group } = this.desk;
    await this.finish(async () => {
      await this.queue.add({ kind: "skip", assignmentId: group.id, reason });
      this.view.announce("Group skipped.");
      await this.done(group);
    });
  }

  /** One decision at a time: a second Enter finds the button locked. */
  async finish(act) {
    if (this.judging.busy) return;
    this.judging.busy = true;
    byId("submit").setAttribute("aria-disabled", "true");
    try {
      await act();
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
      // The disk is full, or the browser withdrew it: the group stays on screen.
      this.view.notice("storage", `This browser could not keep your answer: ${error.message}`);
    } finally {
      this.judging.busy = false;
      byId("submit").removeAttribute("aria-disabled");
    }
  }

  async done(group) {
    this.supply.finish(group);
    this.store.remove("drafts", group.id);
    for (const name of ["lost", "storage"]) this.view.unnotice(name);
    this.groupsDone += 1;
    if (this.clock.worked(Date.now())) {
      this.view.notice("nudge", "25 minutes at it. A short break keeps your eye fresh.");
    }
    // Not awaited: an empty queue may keep us waiting, and the decision is made.
    const shown = this.next();
    if (this.supply.current) await shown;
  }

  // Looking back --------------------------------------------------------------------------------

  /** Review the group before the one on screen; its desk, or null at the end. */
  async previous() {
    if (this.judging.busy || !this.history) return null;
    const record = await this.history.before(this.desk?.review ? this.desk.group.id : null);
    if (!record) {
      this.view.announce("There is no earlier group to look at.");
      return null;
    }
    this.patience.begin(); // whoever waits for a group waits no more
    if (this.desk && !this.desk.review) this.working = this.desk;
    const desk = new Desk(this.history.group(record), record.marks, true);
    this.present(desk);
    const key = shownKey(this.keys.of("submit")[0]);
    this.view.announce(`A group submitted before. ${key} saves changes, Escape returns.`);
    return desk;
  }

  async saveReview(desk) {
    const changes = desk.changes();
    const prompt = desk.group.assignment.group.prompt.text;
    for (const change of changes) {
      await this.queue.add({ kind: "amend", assignmentId: desk.group.id, prompt, ...change });
    }
    if (changes.length) await this.history.remark(desk.group.id, desk.marks);
    this.comeBack();
    this.view.announce(changes.length ? "Changes saved." : "Nothing changed.");
  }

  /** From review to the group in work. */
  comeBack() {
    const { working } = this;
    this.working = null;
    if (working) this.present(working);
    else this.next();
  }

  async undo() {
    if (this.judging.undo() || this.desk?.review) return;
    const earlier = await this.previous();
    if (earlier) this.judging.go(earlier.lastMarked());
  }

  // Dialogs -------------------------------------------------------------------------------------

  checkGuidelines({ group, guidelines, guidelines_version: version }) {
    const name = `guidelines:${group.question.question_id}`;
    if (!guidelines || recall(name, 0) >= version) return;
    showGuidelines(version, guidelines, true, () => {
      remember(name, version);
      this.judging.refocus();
    });
  }

  guidelines() {
    const { guidelines, guidelines_version: version } = this.desk.group.assignment;
    showGuidelines(version, guidelines, false, () => this.judging.refocus());
  }

  askSkip() {
    if (this.desk.review || this.judging.busy) return;
    askReason((reason) => this.skip(reason), () => this.judging.refocus());
  }

  help() {
    const { session } = this.attendance;
    const who = session ? `Signed in as ${session.annotator_id}.` : "Not signed in.";
    const closed = () => this.judging.refocus();
    showHelp(this.keys, who, () => this.drawControls(), closed);
  }

  askToSignIn() {
    const text =
      "Open your invite link in this browser, or ask whoever runs the labelling for a new one. " +
      "Answers that wait here are sent once you are back.";
    this.view.panel("signed-out", "Please sign in", text, [
      ["I have signed in", () => location.reload(), true],
    ]);
  }

  async leave() {
    try {
      await this.queue?.flush();
      await signOut();
    } catch (error) {
      this.attendance.notReached(error);
      return;
    }
    location.reload();
  }

  // What others tell ----------------------------------------------------------------------------

  /** A mark or the zoom has changed: keep it, and say so on the buttons. */
  changed(desk) {
    this.drawControls();
    if (desk.review) return;
    this.store.put("drafts", { assignmentId: desk.group.id, marks: desk.marks, at: Date.now() });
  }

  async sent(entry, body) {
    this.attendance.reached();
    if (entry.kind === "submit") await this.history.accepted(entry.assignmentId, body);
    if (this.supply.current && !this.supply.next) this.prefetch(); // a lease has become free
    if (entry.kind === "amend") {
      await this.history.amended(entry.assignmentId, entry.imageId, body);
    }
  }

  async refused(entry, problem) {
    const closed = problem.code === "group-consumed";
    if (entry.kind === "submit" || closed) await this.history.forget(entry.assignmentId);
    await this.kept.offer();
  }

  /** The browser says that the network is back, or the person is. */
  returned() {
    if (document.hidden || !this.queue) return;
    this.attendance.input();
    if (this.attendance.signedOut) this.attendance.regain();
    this.patience.wake();
    this.queue.flush();
    this.tick();
  }

  drawControls() {
    drawControls(this.keys, this.desk, this.view.zoomed);
  }

  // Input ---------------------------------------------------------------------------------------

  bind() {
    const { judging } = this;
    const clicks = {
      previous: () => this.previous(),
      undo: () => this.undo(),
      skip: () => (this.desk.review ? this.comeBack() : this.askSkip()),
      note: () => judging.note(),
      zoom: () => judging.zoom(),
      submit: () => this.submit(),
      reveal: () => judging.reveal(),
      "open-help": () => this.help(),
      "open-guidelines": () => this.guidelines(),
      "sign-out": () => this.leave(),
    };
    const actions = {
      ...clicks,
      like: () => judging.decide("like"),
      dislike: () => judging.decide("dislike"),
      unsure: () => judging.decide("unsure"),
      skip: () => this.askSkip(),
      help: clicks["open-help"],
      guidelines: clicks["open-guidelines"],
      left: () => judging.move(-1),
      right: () => judging.move(1),
      up: () => judging.move(-this.view.columns),
      down: () => judging.move(this.view.columns),
    };
    bindControls(this.keys, clicks, actions, {
      hasGroup: () => Boolean(this.desk),
      input: () => this.attendance.input(),
      escape: () => this.escape(),
    });
    document.addEventListener("visibilitychange", () => this.returned());
    window.addEventListener("online", () => this.returned());
    window.addEventListener("offline", () => this.attendance.wentOffline());
    this.drawControls();
    this.view.count(0);
  }

  escape() {
    if (this.view.zoomed) this.judging.zoom();
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
