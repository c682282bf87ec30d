// States as words, shapes and tones, and the sentences above the tables. One place, so that no page says it differently.

import { plural, relative } from './format';
import type { Generation, Keep, OperationState, Run, RunState, Scope, Server, Trigger } from './types';

export type Tone = 'ok' | 'warning' | 'failed' | 'running' | 'missed' | 'idle';

export interface Badge {
  word: string;
  icon: string;
  tone: Tone;
}

const RUN: Record<RunState, Badge> = {
  running: { word: 'Running', icon: 'running', tone: 'running' },
  ok: { word: 'OK', icon: 'ok', tone: 'ok' },
  partial: { word: 'Partial', icon: 'partial', tone: 'warning' },
  failed: { word: 'Failed', icon: 'failed', tone: 'failed' },
  missed: { word: 'Missed', icon: 'missed', tone: 'missed' },
  skipped: { word: 'Skipped', icon: 'skipped', tone: 'idle' },
  cancelled: { word: 'Cancelled', icon: 'cancelled', tone: 'idle' },
};

const OTHER: Badge = { word: 'Other', icon: 'never', tone: 'idle' };

export const RUN_STATES = Object.keys(RUN) as RunState[];

export function runBadge(state: RunState | string): Badge {
  return RUN[state as RunState] ?? { ...OTHER, word: state };
}

export const NEVER: Badge = { word: 'No run yet', icon: 'never', tone: 'idle' };

/** What a run state means, for a person who sees the word for the first time. */
export function runMeaning(state: RunState): string {
  const meaning: Record<RunState, string> = {
    running: 'Under way.',
    ok: 'Every destination holds a complete snapshot.',
    partial: 'A snapshot exists, but an object or a copy is missing from it.',
    failed: 'No snapshot was stored.',
    missed: 'The server was off, or its timer was not armed, when this was due.',
    skipped: 'It came due while an earlier run was still going.',
    cancelled: 'A person ended it.',
  };
  return meaning[state] ?? '';
}

export function triggerWords(trigger: Trigger): string {
  const words: Record<Trigger, string> = {
    timer: 'by its timer',
    catch_up: 'by its timer, to catch up',
    request: 'by request',
  };
  return words[trigger] ?? trigger;
}

export function scopeWord(scope: Scope | string): string {
  const words: Record<string, string> = { full: 'Full', web: 'Web', db: 'Database' };
  return words[scope] ?? scope;
}

export function scopeMeaning(scope: Scope): string {
  const words: Record<Scope, string> = {
    full: 'Sites and databases of every account chosen',
    web: 'Site files only',
    db: 'Databases only',
  };
  return words[scope];
}

/** "1 of 2 copies": says it only when a copy is missing. */
export function copiesWord(run: Pick<Run, 'copies'>): string {
  const stored = run.copies.filter((c) => c.state === 'stored').length;
  if (run.copies.length === 0) return 'no copy';
  if (stored === run.copies.length) return plural(stored, 'copy', 'copies');
  return `${stored} of ${plural(run.copies.length, 'copy', 'copies')}`;
}

export function serverBadge(server: Pick<Server, 'online' | 'last_seen_at'>): Badge {
  if (server.online) return { word: 'Online', icon: 'online', tone: 'ok' };
  if (!server.last_seen_at) return { word: 'Not heard yet', icon: 'never', tone: 'idle' };
  return { word: 'Offline', icon: 'offline', tone: 'warning' };
}

export type Step = 'done' | 'waiting' | 'failed' | 'none';

export interface GenerationView {
  badge: Badge;
  detail: string;
  delivered: Step;
  applied: Step;
}

/** How far the saved configuration has come: saved → delivered → applied. */
export function generationView(generation: Generation, online: boolean): GenerationView {
  const { saved, delivered, applied, error } = generation;
  if (saved === 0) {
    const badge: Badge = { word: 'Nothing saved yet', icon: 'never', tone: 'idle' };
    return { badge, detail: 'No configuration was saved for this server yet.', delivered: 'none', applied: 'none' };
  }
  if (error && delivered >= saved) {
    const badge: Badge = { word: `${saved} refused`, icon: 'failed', tone: 'failed' };
    const detail = `The server keeps working with ${applied === 0 ? 'its own files' : applied}. ${error}`;
    return { badge, detail, delivered: delivered >= saved ? 'done' : 'waiting', applied: 'failed' };
  }
  if (applied >= saved) {
    const badge: Badge = { word: `Applied ${applied}`, icon: 'ok', tone: 'ok' };
    return { badge, detail: 'The server works with what is saved here.', delivered: 'done', applied: 'done' };
  }
  if (delivered >= saved) {
    const badge: Badge = { word: `Applying ${saved}`, icon: 'running', tone: 'running' };
    return { badge, detail: 'Delivered; the server is applying it.', delivered: 'done', applied: 'waiting' };
  }
  const badge: Badge = { word: `Delivering ${saved}`, icon: 'waiting', tone: online ? 'running' : 'warning' };
  const detail = online
    ? 'Saved; the server fetches it with its next poll.'
    : 'Saved; the server fetches it when it is back. Until then it works with what it has.';
  const before = error ? ` The one before was refused: ${error}` : '';
  return { badge, detail: detail + before, delivered: 'waiting', applied: 'waiting' };
}

/** The sentence above the servers: what is true now, never more cheerful than that. */
export function fleetSentence(servers: Server[], now: Date): string {
  if (servers.length === 0) return 'No server yet.';
  const offline = servers.filter((s) => !s.online);
  const drifted = servers.filter((s) => s.drift.length > 0).length;
  const refused = servers.filter((s) => s.generation.error).length;
  const tail = [
    refused > 0 ? `${plural(refused, 'server')} refused a configuration.` : '',
    drifted > 0 ? `${plural(drifted, 'server')} ${drifted === 1 ? 'has' : 'have'} drift.` : '',
  ].filter((t) => t !== '');
  if (offline.length === 0) {
    const head = servers.length === 1 ? `${servers[0]?.name} is connected.` : `All ${servers.length} servers are connected.`;
    return [head, ...tail].join(' ');
  }
  const only = offline.length === 1 ? offline[0] : undefined;
  const head =
    only !== undefined
      ? `${only.name} ${only.last_seen_at ? `was last seen ${relative(only.last_seen_at, now)}` : 'never connected'}.`
      : `${offline.length} of ${servers.length} servers are offline.`;
  return [head, ...tail].join(' ');
}

const KEEP_WORDS: [keyof Keep, string][] = [
  ['last', 'newest'],
  ['hourly', 'hourly'],
  ['daily', 'daily'],
  ['weekly', 'weekly'],
  ['monthly', 'monthly'],
  ['yearly', 'yearly'],
];

/** "7 newest, 14 daily, 6 monthly". */
export function keepSentence(keep: Keep): string {
  const parts = KEEP_WORDS.filter(([key]) => Number(keep[key] ?? 0) > 0).map(([key, word]) => `${keep[key]} ${word}`);
  if (keep.within) parts.push(`all of ${keep.within}`);
  if (keep.max) parts.push(`at most ${keep.max}`);
  return parts.length === 0 ? 'everything' : parts.join(', ');
}

/** "7n 14d 6m": the same, for a narrow column. */
export function keepShort(keep: Keep): string {
  const short: [keyof Keep, string][] = [
    ['last', ' newest'],
    ['hourly', 'h'],
    ['daily', 'd'],
    ['weekly', 'w'],
    ['monthly', 'm'],
    ['yearly', 'y'],
  ];
  const parts = short.filter(([key]) => Number(keep[key] ?? 0) > 0).map(([key, word]) => `${keep[key]}${word}`);
  if (keep.within) parts.push(keep.within);
  return parts.length === 0 ? 'everything' : parts.join(' · ');
}

export function taskWord(kind: string): string {
  const words: Record<string, string> = { run: 'Backup', restore: 'Restore', list: 'Listing', cancel: 'Cancelling' };
  return words[kind] ?? kind;
}

export const OPERATION_STEPS: OperationState[] = ['requested', 'accepted', 'running', 'done'];

export function operationBadge(state: OperationState | string): Badge {
  const badges: Record<OperationState, Badge> = {
    requested: { word: 'Requested', icon: 'waiting', tone: 'running' },
    accepted: { word: 'Accepted by the server', icon: 'waiting', tone: 'running' },
    running: { word: 'Running', icon: 'running', tone: 'running' },
    done: { word: 'Done', icon: 'ok', tone: 'ok' },
    failed: { word: 'Failed', icon: 'failed', tone: 'failed' },
    expired: { word: 'Expired', icon: 'missed', tone: 'missed' },
  };
  return badges[state as OperationState] ?? { ...OTHER, word: state };
}

export function operationEnded(state: OperationState | string): boolean {
  return state === 'done' || state === 'failed' || state === 'expired';
}
