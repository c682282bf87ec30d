// What every page shares: session, address, live connection, active tasks, messages. The glue between core and views.

import { createApi, Problem } from '../core/api';
import { openLink, type LinkState, type LiveEvent } from '../core/events';
import { match, parseQuery, type Query, type Route } from '../core/router';
import { endTask, expireTasks, LINGER_MS, replaceTasks, updateTask, type LiveTask } from '../core/tasks';
import type { Page, RunState, Session, Task } from '../core/types';

export type Theme = 'system' | 'light' | 'dark';

export interface Toast {
  id: number;
  text: string;
  tone: 'ok' | 'failed' | 'idle';
}

const THEME_KEY = 'backstay.theme';
const TOAST_MS = 8_000;
const TOASTS_MAX = 3;

function storedTheme(): Theme {
  const theme = document.documentElement.dataset.theme;
  return theme === 'light' || theme === 'dark' ? theme : 'system';
}

class AppState {
  /** undefined while it is not known yet, null when nobody is signed in. */
  session = $state.raw<Session | null | undefined>(undefined);
  setupNeeded = $state(false);
  /** Why the start failed, when the controller did not answer. */
  startProblem = $state.raw<Problem | undefined>(undefined);
  /** The address; the page for it may still be on its way. */
  pathname = $state(location.pathname);
  search = $state(location.search);
  /** The address of the page that is shown. Pages read this one, so that none ever sees the address of another. */
  route = $state.raw<Route>(match(location.pathname));
  query = $state.raw<Query>(parseQuery(location.search));
  link = $state<LinkState>('connecting');
  heardAt = $state(Date.now());
  tasks = $state.raw<LiveTask[]>([]);
  toasts = $state<Toast[]>([]);
  spoken = $state('');
  theme = $state<Theme>(storedTheme());
  /** Ticks once a second, so that ages and countdowns move. */
  now = $state.raw(new Date());

  readonly target: Route = $derived(match(this.pathname));
}

export const app = new AppState();

export const api = createApi((input, init) => fetch(input, init), signedOut);

type Listener = (event: LiveEvent) => void;
const listeners = new Set<Listener>();
let closeLink: (() => void) | undefined;
let toastCount = 0;
let toTop = false;

/** Goes to an address of this dashboard. */
export function go(address: string, options: { replace?: boolean; keepScroll?: boolean } = {}): void {
  if (options.replace) history.replaceState(null, '', address);
  else history.pushState(null, '', address);
  toTop ||= app.pathname !== location.pathname && !options.keepScroll;
  app.pathname = location.pathname;
  app.search = location.search;
}

/** Shows the address, now that its page is there. */
export function arrive(): void {
  app.route = app.target;
  app.query = parseQuery(app.search);
  if (toTop) scrollTo(0, 0);
  toTop = false;
}

/** Lets plain clicks on own links change the page without loading it again. */
export function followLinks(event: MouseEvent): void {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const anchor = (event.target as Element | null)?.closest('a');
  if (!anchor || anchor.target !== '' || anchor.origin !== location.origin || anchor.hasAttribute('download')) return;
  if (anchor.pathname === location.pathname && anchor.search === location.search && anchor.hash !== '') return;
  event.preventDefault();
  go(anchor.pathname + anchor.search, { keepScroll: anchor.hasAttribute('data-keep-scroll') });
}

export function listen(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function say(text: string): void {
  app.spoken = text;
}

export function toast(text: string, tone: Toast['tone'] = 'idle'): void {
  toastCount += 1;
  const id = toastCount;
  app.toasts = [...app.toasts, { id, text, tone }].slice(-TOASTS_MAX);
  setTimeout(() => dismiss(id), TOAST_MS);
}

export function dismiss(id: number): void {
  app.toasts = app.toasts.filter((t) => t.id !== id);
}

/** Any thrown value as a problem, so that a view has one thing to show. */
export function asProblem(cause: unknown): Problem {
  if (cause instanceof Problem) return cause;
  return new Problem(-1, 'Something here went wrong', cause instanceof Error ? cause.message : String(cause));
}

export function setTheme(theme: Theme): void {
  app.theme = theme;
  const root = document.documentElement;
  try {
    if (theme === 'system') localStorage.removeItem(THEME_KEY);
    else localStorage.setItem(THEME_KEY, theme);
  } catch {
    // Storage is refused: the choice lasts as long as the page.
  }
  if (theme === 'system') delete root.dataset.theme;
  else root.dataset.theme = theme;
}

/** Finds out who is signed in, and whether the first run is still to come. */
export async function start(): Promise<void> {
  app.startProblem = undefined;
  try {
    const { body } = await api.get<Session>('/session');
    signedIn(body);
  } catch (cause) {
    const problem = asProblem(cause);
    if (problem.status !== 401) {
      app.startProblem = problem;
      return;
    }
    await askSetup();
  }
}

async function askSetup(): Promise<void> {
  try {
    app.setupNeeded = (await api.get<{ needed: boolean }>('/setup')).body.needed;
  } catch (cause) {
    app.startProblem = asProblem(cause);
    return;
  }
  app.session = null;
  const page = app.target.page;
  if (app.setupNeeded && page !== 'setup') go('/setup', { replace: true });
  if (!app.setupNeeded && page !== 'login') go(loginAddress(), { replace: true });
}

function loginAddress(): string {
  const here = app.pathname + app.search;
  const plain = app.pathname === '/' || app.pathname === '/setup' || app.pathname === '/login';
  return plain ? '/login' : `/login?to=${encodeURIComponent(here)}`;
}

export function signedIn(session: Session): void {
  app.setupNeeded = false;
  app.session = session;
  const page = app.target.page;
  if (page === 'login' || page === 'setup') {
    const to = parseQuery(app.search).to ?? '/';
    go(to.startsWith('/') && !to.startsWith('//') ? to : '/', { replace: true });
  }
  void pollTasks();
  closeLink?.();
  closeLink = openLink({
    open: () => new EventSource('/api/v1/events'),
    onEvent,
    onState: (state) => {
      const back = app.link === 'reconnecting' && state === 'live';
      app.link = state;
      // What happened meanwhile was not heard: everything that is shown is fetched once more.
      if (back) refetch();
    },
    poll: refetch,
  });
}

function refetch(): void {
  void pollTasks();
  for (const listener of listeners) listener({ topic: 'reset', data: null });
}

export function signedOut(): void {
  closeLink?.();
  closeLink = undefined;
  app.tasks = [];
  if (app.session === null) return;
  app.session = null;
  if (app.target.page !== 'login') go(loginAddress(), { replace: true });
}

export async function signOut(): Promise<void> {
  try {
    await api.del('/session');
  } catch (cause) {
    toast(`Signing out failed: ${asProblem(cause).message}`, 'failed');
    return;
  }
  signedOut();
}

let pollWanted = false;
let polling = false;

/** Fetches the active tasks; calls that come while one is under way become one more call. */
export async function pollTasks(): Promise<void> {
  pollWanted = true;
  if (polling) return;
  polling = true;
  while (pollWanted && app.session) {
    pollWanted = false;
    try {
      const { body } = await api.get<Page<Task>>('/tasks');
      app.tasks = replaceTasks(app.tasks, body.items, Date.now());
      app.heardAt = Date.now();
    } catch {
      // The link state already says that the controller is away; the old list stays, with its age.
    }
  }
  polling = false;
}

function isTask(data: unknown): data is Task {
  const task = data as Partial<Task> | null;
  return typeof task?.id === 'string' && typeof task.bytes === 'number' && typeof task.phase === 'string';
}

function isEnd(data: unknown): data is { id: string; state: RunState } {
  const end = data as { id?: unknown; state?: unknown } | null;
  return typeof end?.id === 'string' && typeof end.state === 'string';
}

function onEvent(event: LiveEvent): void {
  app.heardAt = Date.now();
  if (event.topic === 'run.progress' && isTask(event.data)) app.tasks = updateTask(app.tasks, event.data, Date.now());
  if (event.topic === 'run.finished' && isEnd(event.data)) app.tasks = endTask(app.tasks, event.data.id, event.data.state, Date.now());
  if (event.topic !== 'run.progress' && event.topic !== 'schedule.changed' && event.topic !== 'server.status') void pollTasks();
  for (const listener of listeners) listener(event);
}

/** Starts what runs as long as the page: the clock, the back button. Returns what ends it. */
export function attach(): () => void {
  const timer = setInterval(() => {
    app.now = new Date();
    if (app.tasks.some((t) => t.endedAt !== undefined && Date.now() - t.endedAt >= LINGER_MS)) {
      app.tasks = expireTasks(app.tasks, Date.now());
    }
  }, 1_000);
  const back = () => {
    app.pathname = location.pathname;
    app.search = location.search;
  };
  addEventListener('popstate', back);
  return () => {
    clearInterval(timer);
    removeEventListener('popstate', back);
    closeLink?.();
  };
}
