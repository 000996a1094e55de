// One thing at a time: whether the page reads, works or rests, and what is stale by now.
//
//   empty, ready -> reading -> ready, or empty where nothing could be read
//   ready -> working -> ready
//
// Only what is ready may be worked on. To begin something makes stale whatever went on: its signal
// is aborted, and whoever holds a stale signal has nothing more to say.

export class Turns {
  #turn = null;
  #resting = "empty";

  // `changed` is called after every change.
  constructor(changed) {
    this.changed = changed;
  }

  get phase() {
    return this.#turn?.phase ?? this.#resting;
  }

  get busy() {
    return this.#turn !== null;
  }

  // What is being done, in words, and the share of it that is done, 0 if nobody knows.
  get doing() {
    return this.#turn?.doing ?? "";
  }

  get share() {
    return this.#turn?.share ?? 0;
  }

  // Begin to read or to work; return the signal that is aborted when this is stale.
  begin(phase, doing) {
    this.#turn?.abort();
    const controller = new AbortController();
    this.#turn = { phase, doing, share: 0, signal: controller.signal, abort: () => controller.abort() };
    this.changed();
    return controller.signal;
  }

  report(signal, doing, share = 0) {
    if (this.#turn?.signal !== signal) return;
    Object.assign(this.#turn, { doing, share });
    this.changed();
  }

  // What was begun has come to its end.
  finish(signal, resting) {
    if (this.#turn?.signal !== signal) return;
    this.#turn = null;
    this.#resting = resting;
    this.changed();
  }

  // What was begun is not wanted any more; by default all is as it was before.
  stop(resting = this.#resting) {
    this.#turn?.abort();
    this.#turn = null;
    this.#resting = resting;
    this.changed();
  }
}
