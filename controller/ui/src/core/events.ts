// The live connection: server-sent events, and polling every five seconds while they are away.

export type LinkState = 'connecting' | 'live' | 'reconnecting';

export const TOPICS = [
  'hello',
  'run.progress',
  'run.finished',
  'task.changed',
  'server.status',
  'schedule.changed',
  'operation.changed',
  'reset',
] as const;
export type Topic = (typeof TOPICS)[number];

export interface LiveEvent {
  topic: Topic;
  data: unknown;
}

/** Which server an event is about; '' when it does not say. */
export function serverOf(event: LiveEvent): string {
  const data = event.data as { server_id?: unknown; server?: { id?: unknown } } | null;
  const id = data?.server_id ?? data?.server?.id;
  return typeof id === 'string' ? id : '';
}

/** The part of EventSource that is used, so that a test can stand in for it. */
export interface Source {
  addEventListener(type: string, listener: (event: { data?: unknown }) => void): void;
  close(): void;
  readonly readyState: number;
}

export interface LinkOptions {
  open: () => Source;
  /** Called for each event, and for nothing else. */
  onEvent: (event: LiveEvent) => void;
  /** Called when the state changes. */
  onState: (state: LinkState) => void;
  /** Fetches what events would have told; called every POLL_MS while they are away. */
  poll: () => void;
  setTimer?: (run: () => void, ms: number) => unknown;
  clearTimer?: (timer: unknown) => void;
}

export const POLL_MS = 5_000;
const CLOSED = 2;

export function parseData(data: unknown): unknown {
  if (typeof data !== 'string' || data === '') return null;
  try {
    return JSON.parse(data) as unknown;
  } catch {
    return null;
  }
}

/** Opens the connection and keeps it; returns what ends it. */
export function openLink(options: LinkOptions): () => void {
  const setTimer = options.setTimer ?? ((run, ms) => setTimeout(run, ms));
  const clearTimer = options.clearTimer ?? ((timer) => clearTimeout(timer as number));
  let state: LinkState = 'connecting';
  let source: Source | undefined;
  let timer: unknown;
  let ended = false;

  function become(next: LinkState) {
    if (state === next) return;
    state = next;
    options.onState(next);
  }

  function live() {
    if (timer !== undefined) clearTimer(timer);
    timer = undefined;
    become('live');
  }

  function away() {
    if (ended) return;
    become('reconnecting');
    if (timer === undefined) timer = setTimer(tick, POLL_MS);
  }

  function tick() {
    timer = undefined;
    if (ended || state === 'live') return;
    options.poll();
    if (source === undefined || source.readyState === CLOSED) connect();
    if (timer === undefined) timer = setTimer(tick, POLL_MS);
  }

  function connect() {
    source?.close();
    const opened = options.open();
    source = opened;
    opened.addEventListener('open', live);
    opened.addEventListener('error', away);
    for (const topic of TOPICS) {
      opened.addEventListener(topic, (event) => {
        if (ended || source !== opened) return;
        live();
        options.onEvent({ topic, data: parseData(event.data) });
      });
    }
  }

  options.onState(state);
  connect();
  return () => {
    ended = true;
    if (timer !== undefined) clearTimer(timer);
    source?.close();
  };
}
