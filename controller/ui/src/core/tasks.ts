// What runs now: one list from polls and events, with speed and remaining time. Pure reducer over (list, change, now).

import type { RunState, Task } from './types';

export interface LiveTask extends Task {
  /** Bytes per second over the last samples; 0 while unknown. */
  speed: number;
  samples: { at: number; bytes: number }[];
  /** When it left the list, in milliseconds; undefined while it runs. */
  endedAt?: number;
  /** How its run ended, once that was said. Nothing is called a success before. */
  result?: string;
}

/** A finished row stays this long, as a tick. */
export const LINGER_MS = 8_000;
const WINDOW_MS = 15_000;
const SAMPLES_MAX = 60;

function sampled(before: LiveTask | undefined, task: Task, now: number): LiveTask {
  const old = before?.samples ?? [];
  const restarted = old.length > 0 && (old[old.length - 1]?.bytes ?? 0) > task.bytes;
  const kept = restarted ? [] : old.filter((s) => now - s.at <= WINDOW_MS).slice(-SAMPLES_MAX);
  const samples = [...kept, { at: now, bytes: task.bytes }];
  const first = samples[0];
  const gap = first === undefined ? 0 : (now - first.at) / 1000;
  const speed = first !== undefined && gap >= 0.5 ? Math.max(0, (task.bytes - first.bytes) / gap) : (before?.speed ?? 0);
  return { ...task, samples, speed };
}

/** True while the server has not begun: then its id is the order's, and the run gets another one. */
export function isWaiting(task: Pick<Task, 'phase'>): boolean {
  return task.phase === 'requested' || task.phase === 'accepted';
}

/** Takes the end of a run, and how it ended. */
export function endTask(list: LiveTask[], id: string, result: RunState, now: number): LiveTask[] {
  return list.map((t) => (t.id === id ? { ...t, endedAt: t.endedAt ?? now, result } : t));
}

/** Takes a whole list: what is missing from it has ended. */
export function replaceTasks(list: LiveTask[], tasks: Task[], now: number): LiveTask[] {
  const known = (id: string) => list.find((t) => t.id === id);
  const next = tasks.filter((task) => known(task.id)?.result === undefined).map((task) => sampled(known(task.id), task, now));
  const ended = list
    .filter((t) => !next.some((n) => n.id === t.id) && !isWaiting(t) && (t.kind === 'run' || t.kind === 'restore'))
    .map((t) => ({ ...t, endedAt: t.endedAt ?? now }));
  return expireTasks([...next, ...ended], now);
}

/** Takes one task that moved on. */
export function updateTask(list: LiveTask[], task: Task, now: number): LiveTask[] {
  const before = list.find((t) => t.id === task.id);
  if (before === undefined) return [...list, sampled(undefined, task, now)];
  if (before.result !== undefined) return list;
  return list.map((t) => (t.id === task.id ? sampled(before, task, now) : t));
}

/** Forgets what ended longer ago than it may linger. */
export function expireTasks(list: LiveTask[], now: number): LiveTask[] {
  return list.filter((t) => t.endedAt === undefined || now - t.endedAt < LINGER_MS);
}

/** 0 to 1, or undefined when the end is not known. Never 1: that something is complete, only its result says. */
export function fraction(task: Pick<LiveTask, 'bytes' | 'bytes_expected'>): number | undefined {
  if (!task.bytes_expected || task.bytes_expected <= 0) return undefined;
  return Math.min(0.99, task.bytes / task.bytes_expected);
}

/** Seconds left, or undefined while that would be a guess. */
export function secondsLeft(task: LiveTask): number | undefined {
  if (!task.bytes_expected || task.speed <= 0 || task.endedAt !== undefined) return undefined;
  const left = task.bytes_expected - task.bytes;
  return left <= 0 ? undefined : left / task.speed;
}

/** Only whole steps are worth saying aloud: 0, 25, 50, 75. */
export function spokenStep(task: LiveTask): number {
  const part = fraction(task);
  return part === undefined ? 0 : Math.floor(part * 4) * 25;
}
