// One thing fetched for a view: loading, loaded, failed; old content stays while it is fetched again.

import { untrack } from 'svelte';
import { Problem } from '../core/api';
import { serverOf, type Topic } from '../core/events';
import { asProblem, listen } from './app.svelte';

const SETTLE_MS = 250;

export class Resource<T> {
  value = $state.raw<T | undefined>(undefined);
  problem = $state.raw<Problem | undefined>(undefined);
  busy = $state(false);
  #turn = 0;
  #ended = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(readonly fetcher: () => Promise<T>) {}

  /** True while there is nothing to show yet, neither content nor failure. */
  get loading(): boolean {
    return this.value === undefined && this.problem === undefined;
  }

  load = async (): Promise<void> => {
    if (this.#ended) return;
    this.#turn += 1;
    const turn = this.#turn;
    this.busy = true;
    try {
      const value = await this.fetcher();
      if (turn !== this.#turn) return;
      this.value = value;
      this.problem = undefined;
    } catch (cause) {
      if (turn !== this.#turn) return;
      this.problem = asProblem(cause);
    } finally {
      if (turn === this.#turn) this.busy = false;
    }
  };

  /** Nothing is fetched any more: the view is gone. */
  end = (): void => {
    this.#ended = true;
    this.#turn += 1;
    clearTimeout(this.#timer);
  };

  /** Fetches again soon; several calls in a row become one. */
  soon = (): void => {
    if (this.#timer !== undefined) return;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      void this.load();
    }, SETTLE_MS);
  };
}

/** Fetches when the view appears, when `key` changes, and when one of `topics` is heard, if given about that server. */
export function resource<T>(fetcher: () => Promise<T>, key: () => unknown, topics: Topic[] = [], about: () => string = () => ''): Resource<T> {
  const made = new Resource(fetcher);
  let first = true;
  $effect(() => {
    key();
    untrack(() => {
      if (!first) made.value = undefined;
      first = false;
      made.problem = undefined;
      void made.load();
    });
  });
  $effect(() => made.end);
  $effect(() =>
    listen((event) => {
      const [wanted, told] = [about(), serverOf(event)];
      const elsewhere = wanted !== '' && told !== '' && wanted !== told;
      if (event.topic === 'reset' || (topics.includes(event.topic) && !elsewhere)) made.soon();
    }),
  );
  return made;
}
